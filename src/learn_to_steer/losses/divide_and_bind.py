"""Divide-and-Bind, the attendance term: every object's map should have structure, measured by its total variation.

Source: Li et al., BMVC 2023, arXiv 2307.10864 (L_attend). Written from a description of the method; the authors' code,
which is under the AGPL, was not read.

Published defaults: one update per step in the first half. At 0, 20 and 40 per cent of the steps there are up to 100,
50 and 50 refinement iterations, until the smallest total variation reaches 0.05, 0.2 and 0.3.

Differs: neighbouring rows are compared, as the formula says (the published code compares all rows with the last). The
binding term is left out: it ties adjectives to nouns, and relations have no adjectives. The loss does not depend on
the predicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import LossAndProbability, LossOutput, ObjectPair, StepInfo, pack_relations
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec


class DivideAndBind:
    """Loss of a relation: minus the smaller total variation of its objects' maps.

    The probability is that total variation, on which the paper states its targets; in practice it is far below one.

    Args:
        words_only: Exclude end and padding from the softmax over tokens, as is done for SD2.x.
    """

    schedule: Mapping[str, Any] = published_schedule(
        "divide-and-bind", refinement=((0.0, 100, 0.05), (0.2, 50, 0.2), (0.4, 50, 0.3))
    )
    spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "Divide-and-Bind")

    def predicates(self) -> tuple[str, ...]:
        """All predicates; the loss does not depend on them."""
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        variation = total_variation(attention.object_maps(maps, words_only=self.words_only))

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            smaller = torch.minimum(variation[sample, pair.subject], variation[sample, pair.reference])
            return -smaller, smaller

        return pack_relations(object_pairs, loss_of)


def total_variation(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch"]:
    """Return the mean absolute difference of horizontal neighbours plus that of vertical neighbours."""
    return maps.diff(dim=-1).abs().mean((-2, -1)) + maps.diff(dim=-2).abs().mean((-2, -1))


def build(layout: Layout) -> DivideAndBind:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "Divide-and-Bind")
    return DivideAndBind(attention.is_sd2_layout(layout))
