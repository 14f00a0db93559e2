"""FOR-Spatial: a sigmoid of how far the objects' centres of attention are on the wrong side of each other.

Source: the spatial term of FOR, arXiv 2503.06506; hadi-hosseini/noise-refinement. For FLUX: Learn-to-Steer, arXiv
2509.02295, appendix C.1, which averages all maps of all layers and searches the step size.

Published defaults: one update of size 20 sqrt(linspace(1, 1/2)) before each step of the first half; all weights one.

Differs: an object of several tokens is the mean of all their maps (published: the first two words). On maps that are
not 16 cells wide, coordinates still run from 0 to 15, so that the sigmoid keeps its slope. For FLUX the paper gives
neither its step size nor its unit of distance; search the step size on validation prompts (``--set step_size=...`` over
5, 10, 20, 50, 100 and 200, with ``iterations`` 1 and 15). On FLUX there is no second softmax over the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.geometry import BASIC
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import LossAndProbability, LossOutput, ObjectPair, Scalar, StepInfo, pack_relations
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec


class ForSpatial:
    """Loss of a relation: sigmoid(d), where d is the distance on the wrong side in cells of a 16 x 16 map.

    The probability is that of the same logistic model, sigmoid(-d): one half where the centres coincide.

    Args:
        unet: Whether to read the 16 x 16 maps of a UNet; else the mean of all maps.
    """

    schedule: Mapping[str, Any] = published_schedule("for-spatial", relation_reduction="sum")

    def __init__(self, unet: bool = True) -> None:
        self._unet = unet
        self.spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16) if unet else MapSpec()

    def check(self, layout: Layout) -> None:
        """Accept every layout."""

    def predicates(self) -> tuple[str, ...]:
        """The four basic predicates."""
        return BASIC

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        centres = object_centres(maps, self._unet)

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            subject, reference = centres[sample, pair.subject], centres[sample, pair.reference]
            apart = attention.signed_separation(pair.predicate, subject, reference)
            return self.loss(apart), torch.sigmoid(apart)

        return pack_relations(object_pairs, loss_of)

    def loss(self, apart: Scalar) -> Scalar:
        """Return the loss of a relation.

        Args:
            apart: Signed distance of the centres in cells; negative if the relation does not hold.

        Returns:
            The loss, in [0, 1].
        """
        return torch.sigmoid(-apart)


def object_centres(maps: AttentionMaps, unet: bool) -> Float[Tensor, "batch objects 2"]:
    """Return the centres of attention (x, y) of all objects.

    Args:
        maps: Attention maps.
        unet: True: a UNet's maps of every text token. False: maps of objects, averaged over all layers and heads.

    Returns:
        The centres, in [0, 15] along both axes.
    """
    objects = attention.object_maps(maps, smooth=False) if unet else attention.mean_map(maps)
    return attention.centre_of_mass(objects, attention.LAST)


def build(layout: Layout) -> ForSpatial:
    """Make the loss for the maps of any model."""
    return ForSpatial(attention.is_unet(layout))
