"""STORM as its code was released, with what that code does to the direction.

*Source:* Han et al., CVPR 2025, arXiv 2503.22168; constants and behaviour of the released code, whose Sinkhorn loop
reduces to a closed form (``_storm``). Kept as released: the subject is always pushed to the left or up, also for "right
of" and "below"; for vertical relations a column's number is compared with a row's centre; refinement happens only
where the order of the centres already is what is pushed for.
*Differs:* the relation comes from our parser, not from sub-strings of the prompt ("laptop" is not vertical); no
attribute term, since relations carry no adjectives; no Sinkhorn loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from learn_to_steer.maps import AttentionMaps, Layout
from learn_to_steer.objectives import _columns, _places, _storm, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict


class StormReleased(_storm.Reading):
    """Loss: overlap weighed by the side, the subject on the left or above. The probability is 1 - loss, at least 0."""

    schedule: Mapping[str, Any] = _storm.schedule("storm-released")

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        shown = _storm.normalised(_columns.object_maps(maps, words_only=self.words_only))
        centres = _places.centre(shown, _storm.LAST)

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            along, _ = _places.SIDES[pair.predicate]
            loss = _storm.overlap(shown[b, pair.subject], shown[b, pair.reference], along, 0, clock.of_fifty)
            return loss, 1 - loss

        def in_order(b: int, pair: Pair) -> Tensor:
            along, _ = _places.SIDES[pair.predicate]
            return centres[b, pair.subject, along] < centres[b, pair.reference, along]

        verdict = _verdicts.each(pairs, judge)
        ordered = [[in_order(b, pair).float() for pair in sample] for b, sample in enumerate(pairs)]
        return Verdict(verdict.loss, verdict.probability, refinable=_verdicts.table(ordered, 1.0) > 0)


def build(layout: Layout) -> StormReleased:
    """STORM as released for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "STORM")
    return StormReleased(_columns.ends_apart(layout))
