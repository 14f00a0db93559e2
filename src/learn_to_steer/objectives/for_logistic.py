"""FOR-Spatial with the logistic loss: the same distance, but a push that does not die when objects are far off.

*Source:* ours, on the maps and the schedule of ``for_spatial``. sigmoid(d) is flat both where the relation holds and
where it fails badly (slope 0.018 at four cells); softplus(d), the cross-entropy of a classifier whose only feature is
d, keeps a slope of 0.98 there. It is the strongest handcrafted twin of a learned classifier that costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from learn_to_steer.maps import Layout
from learn_to_steer.objectives import _columns
from learn_to_steer.objectives._schedules import published
from learn_to_steer.objectives.for_spatial import ForSpatial


class ForLogistic(ForSpatial):
    """Loss: softplus(d), d as in ``ForSpatial``; the probability is exp(-loss) = sigmoid(-d)."""

    schedule: Mapping[str, Any] = published("for-logistic", pick="sum")

    def loss(self, apart: Tensor) -> Tensor:
        return functional.softplus(-apart)


def build(layout: Layout) -> ForLogistic:
    """The logistic twin for the maps of ``layout``."""
    return ForLogistic(_columns.is_unet(layout))
