"""Attend-and-Excite: no object may be neglected; the least attended one is pulled up.

*Source:* Chefer et al., SIGGRAPH 2023, arXiv 2301.13826 (L = max over objects of 1 - max over places).
Constants as published: one update of size 20 sqrt(linspace(1, 1/2)) before each step of the first half; in the steps
at 0, 20 and 40 per cent up to 20 more until the least attended object's peak reaches 0.05, 0.5 and 0.8.
*Differs:* the objects are the relations' two nouns, each the mean of its columns. The method knows no directions:
a relation is only a list of two objects to it.
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


class AttendAndExcite:
    """Loss of a relation: 1 minus the lower of its objects' peaks; with ``pick="worst"`` that is the paper's maximum.

    The probability is that peak itself, on which the paper's targets are stated. ``words_only`` leaves end and padding
    out of the softmax over columns, as the authors do for SD2.x.
    """

    schedule: Mapping[str, Any] = published(
        "attend-and-excite", refinement=((0.0, 20, 0.05), (0.2, 20, 0.5), (0.4, 20, 0.8))
    )
    spec = MapSpec(columns="every", choose=_columns.coarse)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "Attend-and-Excite")

    def predicates(self) -> tuple[str, ...]:
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        peaks = _columns.object_maps(maps, words_only=self.words_only).amax((-2, -1))

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            lower = torch.minimum(peaks[b, pair.subject], peaks[b, pair.reference])
            return (1 - lower).clamp_min(0), lower

        return _verdicts.each(pairs, judge)


def build(layout: Layout) -> AttendAndExcite:
    """Attend-and-Excite for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "Attend-and-Excite")
    return AttendAndExcite(_columns.ends_apart(layout))
