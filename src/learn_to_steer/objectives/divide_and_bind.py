"""Divide-and-Bind, its dividing term: every object's map should have structure, measured by its total variation.

*Source:* Li et al., BMVC 2023, arXiv 2307.10864 (L_attend). Written from a description of the method; its code, which
is under the AGPL, was not read. Schedule as published: one update a step in the first half; at 0, 20 and 40 per cent
up to 100, 50 and 50 more until the smallest total variation reaches 0.05, 0.2 and 0.3.
*Differs:* neighbouring rows are compared, as the formula says (the published code compares all rows with the last).
The binding term ties adjectives to nouns; relations carry no adjectives, so there is nothing to bind. The method
knows no directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec
from learn_to_steer.objectives import _columns, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict
from learn_to_steer.objectives._schedules import published


class DivideAndBind:
    """Loss of a relation: minus the smaller total variation of its objects' maps.

    The probability is that total variation, on which the paper's targets are stated; in practice it is far below one.
    ``words_only`` leaves end and padding out of the softmax over columns, as is done for SD2.x.
    """

    schedule: Mapping[str, Any] = published(
        "divide-and-bind", refinement=((0.0, 100, 0.05), (0.2, 50, 0.2), (0.4, 50, 0.3))
    )
    spec = MapSpec(columns="every", choose=_columns.coarse)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "Divide-and-Bind")

    def predicates(self) -> tuple[str, ...]:
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        variation = total_variation(_columns.object_maps(maps, words_only=self.words_only))

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            smaller = torch.minimum(variation[b, pair.subject], variation[b, pair.reference])
            return -smaller, smaller

        return _verdicts.each(pairs, judge)


def total_variation(maps: Tensor) -> Tensor:
    """Mean absolute difference of horizontal neighbours plus that of vertical ones: (..., height, width) -> (...,)."""
    return maps.diff(dim=-1).abs().mean((-2, -1)) + maps.diff(dim=-2).abs().mean((-2, -1))


def build(layout: Layout) -> DivideAndBind:
    """Divide-and-Bind for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "Divide-and-Bind")
    return DivideAndBind(_columns.ends_apart(layout))
