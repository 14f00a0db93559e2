"""FOR, stage 1: the spatial term with terms against missing and mixed objects.

*Source:* FOR, arXiv 2503.06506, unified loss; constants as published with it: all
weights one, the schedule of ``for_spatial``. Spatial term on the second softmax with factor 100, the others with 1.
*Differs:* no attribute term, since relations carry no adjectives. Stage 2, a restart from the
same noise after a look at the picture, is ``_for_repair``. An object of several sub-words is the mean of its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec
from learn_to_steer.objectives import _columns, _places, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict
from learn_to_steer.objectives._schedules import published
from learn_to_steer.objectives.for_spatial import object_centres

CONTRAST = 1000.0


class ForUnified:
    """Loss of a picture: spatial + missing; where no relation has a spatial term (diagonals), mixing + missing.

    The probability is exp(-loss).
    """

    schedule: Mapping[str, Any] = published("for-unified")
    spec = MapSpec(columns="every", choose=_columns.coarse)

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "FOR's unified loss")

    def predicates(self) -> tuple[str, ...]:
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        centres = object_centres(maps, unet=True)
        plain = _columns.object_maps(maps, sharpness=1.0, smooth=False)

        def judge(b: int) -> tuple[Tensor, Tensor]:
            shown = plain[b, sorted({number for pair in pairs[b] for number in (pair.subject, pair.reference)})]
            placed = [
                torch.sigmoid(-_places.separation(p.predicate, centres[b, p.subject], centres[b, p.reference]))
                for p in pairs[b]
                if p.predicate in _places.SIDES
            ]
            loss = missing(shown) + (torch.stack(placed).sum() if placed else mixing(shown))
            return loss, (-loss).exp()

        return _verdicts.whole(pairs, judge)


def missing(maps: Tensor) -> Tensor:
    """Sum over objects of how little each stands out from the others anywhere; ``maps`` (objects, height, width)."""
    share = maps / maps.sum((-2, -1), keepdim=True)
    apart = (CONTRAST * (share[:, None] - share[None])).amax((-2, -1)).clamp_min(0)  # zero with itself
    return (1 - apart.sum(dim=1) / max(len(maps) - 1, 1)).clamp_min(0).sum()


def mixing(maps: Tensor) -> Tensor:
    """Sum of soft overlaps over unordered pairs of ``maps`` (objects, height, width)."""
    pairs = [overlap(maps[i], maps[j]) for i, j in combinations(range(len(maps)), 2)]
    return torch.stack(pairs).sum() if pairs else maps.sum() * 0.0


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """FOR's IoU: sum(A B) / sum(A + B) of maps scaled to [0, 1]; one half for equal binary maps."""
    a, b = _scaled(first), _scaled(second)
    return (a * b).sum() / (a + b).sum()


def _scaled(shown: Tensor) -> Tensor:
    low, high = shown.amin(), shown.amax()
    return (shown - low) / (high - low).clamp_min(1e-12)


def build(layout: Layout) -> ForUnified:
    """FOR's unified loss for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "FOR's unified loss")
    return ForUnified()
