"""What the STORM variants share: the closed form of the released cost, and its schedule.

*Source:* Han et al., CVPR 2025, arXiv 2503.22168, as released. The released cost matrix depends on the source places
alone, so that its transport plan is the product of the two maps whatever the targets are, and the transport cost
is sum_p A(p) B(p) g(p): a penalty on overlap, weighed by the side. That closed form is used here; it leaves out only
a guard against tiny numbers in the released Sinkhorn loop, which ignores pixels of very high cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from learn_to_steer.geometry import BASIC
from learn_to_steer.maps import Layout, MapSpec
from learn_to_steer.objectives import _columns, _places
from learn_to_steer.objectives._schedules import published

TINY = 1e-8
LAST = _columns.SIDE - 1.0


class Reading:
    """Which maps every variant reads. ``words_only`` leaves end and padding out of the softmax over columns, as the
    authors do for SD2.x (they don't inside refinement).
    """

    spec = MapSpec(columns="every", choose=_columns.coarse)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "STORM")

    def predicates(self) -> tuple[str, ...]:
        return BASIC


def schedule(name: str) -> Mapping[str, Any]:
    """No update in the very first step; up to 30 more at 10, 20, 30 and 40 per cent; gradients clipped to norm one."""
    refinement = ((0.1, 30, 0.95), (0.2, 30, 0.99), (0.3, 30, 0.995), (0.4, 30, 0.999))
    return published(name, start=0.02, clip=1.0, pick="sum", refinement=refinement)


def weight(step: float) -> float:
    """The side's weight at a step of fifty: 1, then rising to 100."""
    return 1 + 99 * (1 - math.exp(-0.4 * step))


def normalised(maps: Tensor) -> Tensor:
    """Maps that sum to one."""
    return maps / maps.sum((-2, -1), keepdim=True)


def overlap(first: Tensor, second: Tensor, along: int, grid: int, step: float) -> Tensor:
    """L_A + L_B for two maps (height, width) of sum one; ``first`` belongs to the smaller coordinates.

    ``along`` is the axis (0: x, 1: y) of the centres, ``grid`` that of the places they are compared with. Where a
    place is on its map's own side, overlap costs 1 / (w distance), on the other side w distance.
    """
    both = first * second
    size = first.shape[-1] if grid == 0 else first.shape[-2]
    places = _places.axis(size, LAST, first)
    places = places if grid == 0 else places[:, None]
    centres = [_places.centre(second, LAST)[along], _places.centre(first, LAST)[along]]
    before = _cost(centres[0] - places, step)
    after = _cost(places - centres[1], step)
    return (both * (before + after)).sum()


def _cost(inward: Tensor, step: float) -> Tensor:
    w = weight(step)
    right = inward > 0
    # The branch that is not taken must not divide by zero: its gradient would be NaN.
    return (w * (inward.abs() + TINY)).where(~right, 1 / (w * (inward.where(right, inward.new_ones(())) + TINY)))
