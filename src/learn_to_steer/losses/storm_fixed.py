"""STORM with its errors corrected: every predicate pushes in its own direction, along its own axis.

Source: the released method, with the same loss and constants; see ``storm_released``.

Differs: the objects swap roles for "right of" and "below", rows are compared with rows, and refinement also happens
while the order is still wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import LossAndProbability, LossOutput, ObjectPair, StepInfo, pack_relations
from learn_to_steer.losses.storm_released import Storm, storm_schedule, weighted_overlap
from learn_to_steer.maps import AttentionMaps, Layout


class StormCorrected(Storm):
    """Loss of a relation: overlap weighted by the relation's side. The probability is 1 - loss, at least 0."""

    schedule: Mapping[str, Any] = storm_schedule("storm-fixed")

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        objects = self.normalised_maps(maps)

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            axis, smaller = attention.SIDES[pair.predicate]
            first, second = (pair.subject, pair.reference) if smaller else (pair.reference, pair.subject)
            loss = weighted_overlap(objects[sample, first], objects[sample, second], axis, axis, info.step_of_50)
            return loss, 1 - loss

        return pack_relations(object_pairs, loss_of)


def build(layout: Layout) -> StormCorrected:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "STORM")
    return StormCorrected(attention.is_sd2_layout(layout))
