"""InfSplign: changes the predicted noise so that the relation of the centres holds and objects stay compact and
balanced.

Source: arXiv 2512.17851; vladi2002/InfSplign-.

Published defaults: margin 0.25, slope 0.75, weights one; 1000 times the gradient is added to the predicted noise in
every denoising step, one backward per step. Maps are resized to 64 x 64 with antialiasing; coordinates run from 0 to 1.

Differs: the gradient is taken in a forward of its own with the conditional half, not in the guided forward: the result
is the same, at the cost of one more forward. For ``up_blocks.1`` and ``up_blocks.2`` the two coarsest levels of up
blocks are read, which other UNets have too. An object is the mean of the maps of all its tokens (published: the second
word of two). Nearness, which the published code supports, is not among our predicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import NEVER, LossAndProbability, LossOutput, ObjectPair, StepInfo, pack_relations
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer, MapSpec

SIDE = 64
MARGIN = 0.25
SLOPE = 0.75


def two_coarsest_up(layers: Sequence[MapLayer], height: int, width: int) -> list[MapLayer]:
    """Return the layers of the two coarsest levels among the up blocks."""
    up = [layer for layer in layers if layer.name.startswith("up_blocks")]
    levels = sorted({layer.level for layer in up}, reverse=True)[:2]
    return [layer for layer in up if layer.level in levels]


class InfSplign:
    """Loss of a relation, mean over layers: GELU(slope (margin - D)) plus a term on the objects' variances.

    D is the signed separation in the wanted direction, v the variance of an object. The coarsest level adds v_s + v_o
    (presence), the next one |v_s - v_o| (balance). The probability is the mean over layers of sigmoid(15 D): D in cells
    of a 16 x 16 map, through FOR's logistic model. No stop rule is published.
    """

    schedule: Mapping[str, Any] = {
        "profile": "infsplign",
        "update": "prediction",
        "by_step_index": True,
        "window": 1.0,
        "iterations": 1,
        "max_iterations": 10_000,
        "step_size": 1000.0,
        "normalised": False,
        "relation_reduction": "sum",
        "threshold": NEVER,
    }
    spec = MapSpec(choose=two_coarsest_up)

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "InfSplign")

    def predicates(self) -> tuple[str, ...]:
        """The four basic predicates."""
        return BASIC

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        cells = [layer.shape[-2:].numel() for layer in maps.layers]
        resized = torch.stack([_resized(layer.mean(dim=2)) for layer in maps.layers], dim=2)
        centres = attention.centre_of_mass(resized, 1.0)  # (batch, objects, layers, 2)
        variances = attention.spatial_variance(resized, 1.0)  # (batch, objects, layers)
        coarsest = torch.tensor([number == min(cells) for number in cells], device=resized.device)

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            subject, reference = centres[sample, pair.subject], centres[sample, pair.reference]
            apart = attention.signed_separation(pair.predicate, subject, reference)
            v_s, v_o = variances[sample, pair.subject], variances[sample, pair.reference]
            compactness = torch.where(coarsest, v_s + v_o, (v_s - v_o).abs())
            return (spatial(apart) + compactness).mean(), torch.sigmoid(attention.LAST * apart).mean()

        return pack_relations(object_pairs, loss_of)


def spatial(apart: Float[Tensor, " layers"]) -> Float[Tensor, " layers"]:
    """Return GELU(slope (margin - D)) of the signed separation D, in image widths."""
    return functional.gelu(SLOPE * (MARGIN - apart))


def _resized(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, (SIDE, SIDE), mode="bilinear", antialias=True)


def build(layout: Layout) -> InfSplign:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "InfSplign")
    return InfSplign()
