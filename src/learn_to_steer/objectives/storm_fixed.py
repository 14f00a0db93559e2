"""STORM with its slips mended: every predicate pushes its own way, along its own axis.

*Source:* the released method (``storm_released``; Han et al., CVPR 2025, arXiv 2503.22168), same loss and constants.
*Differs:* roles are exchanged for "right of" and "below", rows are compared with rows, and refinement happens where
the order is still wrong too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from learn_to_steer.maps import AttentionMaps, Layout
from learn_to_steer.objectives import _columns, _places, _storm, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict


class StormFixed(_storm.Reading):
    """Loss: overlap weighed by the relation's side. The probability is 1 - loss, at least 0."""

    schedule: Mapping[str, Any] = _storm.schedule("storm-fixed")

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        shown = _storm.normalised(_columns.object_maps(maps, words_only=self.words_only))

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            along, smaller = _places.SIDES[pair.predicate]
            first, second = (pair.subject, pair.reference) if smaller else (pair.reference, pair.subject)
            loss = _storm.overlap(shown[b, first], shown[b, second], along, along, clock.of_fifty)
            return loss, 1 - loss

        return _verdicts.each(pairs, judge)


def build(layout: Layout) -> StormFixed:
    """STORM, mended, for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "STORM")
    return StormFixed(_columns.ends_apart(layout))
