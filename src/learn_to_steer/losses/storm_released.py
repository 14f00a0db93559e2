"""STORM as its code was released, including its errors in the direction.

Source: Han et al., CVPR 2025, arXiv 2503.22168; MICV-yonsei/STORM, ``pipeline.py``.

The released cost matrix depends on the source cells alone. Its transport plan is therefore the product of the two maps,
whatever the targets are. The transport cost is the sum over cells of A B g, where A and B are the maps and g the cost:
a penalty on overlap that depends on the side. That closed form is used here. It leaves out only a guard against tiny
numbers in the released Sinkhorn loop, which ignores pixels of very high cost.

Published defaults: no update in the first step, then one before each step of the first half, gradients clipped to norm
one. At 10, 20, 30 and 40 per cent of the steps there are up to 30 refinement iterations, until the loss is at most
0.05, 0.01, 0.005 and 0.001.

Kept as released: the subject is always pushed to the left or up, also for "right of" and "below". For vertical
relations the index of a column is compared with the centre of a row. Refinement happens only where the centres are
already in the order that the loss pushes for.

Differs: the relation comes from our parser, not from substrings of the prompt ("laptop" contains "top"). There is no
attribute term, since relations have no adjectives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from learn_to_steer.geometry import BASIC
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import (
    LossAndProbability,
    LossOutput,
    ObjectPair,
    Scalar,
    StepInfo,
    pack_relations,
    pad_rows,
)
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

TINY = 1e-8


class Storm:
    """Base of the variants of STORM: the maps they read, and the models they work with.

    Args:
        words_only: Exclude end and padding from the softmax over tokens, as the authors do for SD2.x outside
            refinement.
    """

    spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "STORM")

    def predicates(self) -> tuple[str, ...]:
        """The four basic predicates."""
        return BASIC

    def normalised_maps(self, maps: AttentionMaps) -> Float[Tensor, "batch objects height width"]:
        """Return one map per object, of sum one."""
        return attention.normalise(attention.object_maps(maps, words_only=self.words_only))


def storm_schedule(name: str) -> Mapping[str, Any]:
    """Return the published schedule, under the name of a variant."""
    refinement = ((0.1, 30, 0.95), (0.2, 30, 0.99), (0.3, 30, 0.995), (0.4, 30, 0.999))
    return published_schedule(name, start=0.02, clip=1.0, relation_reduction="sum", refinement=refinement)


class StormReleased(Storm):
    """Loss of a relation: overlap weighted by the side, with the subject always on the left or above.

    The probability is 1 - loss, at least 0.
    """

    schedule: Mapping[str, Any] = storm_schedule("storm-released")

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        objects = self.normalised_maps(maps)
        centres = attention.centre_of_mass(objects, attention.LAST)

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            axis, _ = attention.SIDES[pair.predicate]
            subject, reference = objects[sample, pair.subject], objects[sample, pair.reference]
            loss = weighted_overlap(subject, reference, axis, 0, info.step_of_50)
            return loss, 1 - loss

        def in_order(sample: int, pair: ObjectPair) -> Tensor:
            axis, _ = attention.SIDES[pair.predicate]
            return centres[sample, pair.subject, axis] < centres[sample, pair.reference, axis]

        packed = pack_relations(object_pairs, loss_of)
        ordered = [[in_order(sample, pair).float() for pair in row] for sample, row in enumerate(object_pairs)]
        return LossOutput(packed.loss, packed.probability, refinable=pad_rows(ordered, 1.0) > 0)


def weighted_overlap(
    first: Float[Tensor, "height width"], second: Float[Tensor, "height width"], axis: int, grid_axis: int, step: float
) -> Scalar:
    """Return STORM's loss L_A + L_B in closed form.

    A cell of a map costs 1 / (w distance) on the map's own side of the other centre, and w distance beyond it.

    Args:
        first: Map of the object that belongs to the smaller coordinates, of sum one.
        second: Map of the other object, of sum one.
        axis: Axis of the centres (0: x, 1: y).
        grid_axis: Axis of the cell coordinates that are compared with the centres.
        step: Index of the denoising step on a schedule of 50; it sets the weight w (``side_weight``).

    Returns:
        The loss.
    """
    product = first * second
    size = first.shape[-1] if grid_axis == 0 else first.shape[-2]
    cells = attention.coordinates(size, attention.LAST, first)
    cells = cells if grid_axis == 0 else cells[:, None]
    first_centre, second_centre = (attention.centre_of_mass(one, attention.LAST)[axis] for one in (first, second))
    return (product * (_cost(second_centre - cells, step) + _cost(cells - first_centre, step))).sum()


def side_weight(step: float) -> float:
    """Return the weight w at a step of a schedule of 50: 1 at the first step, then rising to 100."""
    return 1 + 99 * (1 - math.exp(-0.4 * step))


def _cost(inward: Tensor, step: float) -> Tensor:
    w = side_weight(step)
    own_side = inward > 0
    # The branch that is not taken must not divide by zero: its gradient would be NaN.
    safe = inward.where(own_side, inward.new_ones(()))
    return (w * (inward.abs() + TINY)).where(~own_side, 1 / (w * (safe + TINY)))


def build(layout: Layout) -> StormReleased:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "STORM")
    return StormReleased(attention.is_sd2_layout(layout))
