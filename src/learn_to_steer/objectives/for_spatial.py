"""FOR-Spatial: a sigmoid of how far the objects' centres of attention are on the wrong side.

*Source:* FOR, arXiv 2503.06506, its spatial term; constants as published with it.
For FLUX, Learn-to-Steer (arXiv 2509.02295, appendix C.1) averages all maps of all layers and searched the step size.
*Differs:* an object of several sub-words is the mean of all its columns. On maps that are not 16 cells wide,
coordinates still run from 0 to 15, so that the sigmoid keeps its slope. For FLUX the paper gives neither the step size
it found nor its unit of distance: there the rate is to be searched on validation prompts (``--set rate=...`` over
5, 10, 20, 50, 100, 200, with ``passes`` 1 and 15), and the softmax over the text is not followed by a second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.geometry import BASIC
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec
from learn_to_steer.objectives import _columns, _places, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict
from learn_to_steer.objectives._schedules import published

LAST = _columns.SIDE - 1.0  # the last cell's coordinate


class ForSpatial:
    """Loss: the sum over relations of sigmoid(d), d in cells of a 16 x 16 map, positive on the wrong side.

    The probability is that of the same logistic model, sigmoid(-d): one half where the centres coincide.
    """

    schedule: Mapping[str, Any] = published("for-spatial", pick="sum")

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
            return self.loss(apart), torch.sigmoid(apart)

        return _verdicts.each(pairs, judge)

    def loss(self, apart: Tensor) -> Tensor:
        """The loss of centres that are ``apart`` cells on the right side, negative on the wrong one."""
        return torch.sigmoid(-apart)


def object_centres(maps: AttentionMaps, unet: bool) -> Tensor:
    """Centres of attention (batch, objects, 2) in [0, 15], of a UNet's coarse maps or of the mean of all maps."""
    shown = _columns.object_maps(maps, smooth=False) if unet else _columns.mean_map(maps)
    return _places.centre(shown, LAST)


def build(layout: Layout) -> ForSpatial:
    """FOR-Spatial for the maps of ``layout``."""
    return ForSpatial(_columns.is_unet(layout))
