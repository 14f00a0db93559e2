"""FOR-Spatial with the logistic loss: the same distance, but the gradient does not vanish where objects are far off.

Source: our own, on the maps and the schedule of ``for_spatial``, with its distance d on the wrong side. sigmoid(d) is
flat both where the relation holds and where it fails badly (slope 0.018 at four cells). softplus(d), the cross-entropy
of a classifier whose only feature is d, has a slope of 0.98 where it fails badly. It is the handcrafted loss that is
closest to the learned one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn import functional

from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import Scalar
from learn_to_steer.losses.for_spatial import ForSpatial
from learn_to_steer.maps import Layout


class ForLogistic(ForSpatial):
    """Loss of a relation: softplus(d), with d as in ``ForSpatial``; the probability is exp(-loss) = sigmoid(-d)."""

    schedule: Mapping[str, Any] = published_schedule("for-logistic", relation_reduction="sum")

    def loss(self, apart: Scalar) -> Scalar:
        """Return softplus(d); see ``ForSpatial.loss``."""
        return functional.softplus(-apart)


def build(layout: Layout) -> ForLogistic:
    """Make the loss for the maps of any model."""
    return ForLogistic(attention.is_unet(layout))
