"""FOR-Spatial with the logistic loss: the same distance, but a push that does not die when objects are far off.

*Source:* ours, on the maps and the schedule of ``for_spatial``. sigmoid(d) is flat both where the relation holds and
where it fails badly (slope 0.018 at four cells); softplus(d), the cross-entropy of a classifier whose only feature is
d, keeps a slope of 0.98 there. It is the strongest handcrafted twin of a learned classifier that costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec
from learn_to_steer.objectives import _columns, _places, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict
from learn_to_steer.objectives._schedules import published
from learn_to_steer.objectives.for_spatial import object_centres


class ForLogistic:
    """Loss: softplus(d), d as in ``ForSpatial``; the probability is exp(-loss) = sigmoid(-d)."""

    schedule: Mapping[str, Any] = published("for-logistic", pick="sum")

    def __init__(self, unet: bool = True) -> None:
        self._unet = unet
        self.spec = MapSpec(columns="every", choose=_columns.coarse) if unet else MapSpec()

    def check(self, layout: Layout) -> None:
        """Every family's maps will do."""

    def predicates(self) -> tuple[str, ...]:
        return BASIC

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        centres = object_centres(maps, self._unet)

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            apart = _places.separation(pair.predicate, centres[b, pair.subject], centres[b, pair.reference])
            return functional.softplus(-apart), torch.sigmoid(apart)

        return _verdicts.each(pairs, judge)


def build(layout: Layout) -> ForLogistic:
    """The logistic twin for the maps of ``layout``."""
    return ForLogistic(_columns.is_unet(layout))
