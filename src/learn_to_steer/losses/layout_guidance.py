"""Backward layout guidance: attention is pulled into given boxes. Here each predicate gives two fixed boxes.

Source: Chen, Laina and Vedaldi, WACV 2024, arXiv 2304.03373, backward guidance; silent-chen/layout-guidance,
``inference.py`` and ``utils.py``.

Published defaults: the loss times 30 and times the variance of the noise; at most 5 iterations in each of the first 20
per cent of the steps, until the energy is 0.2 or less. Maps are the probabilities of every head of the middle block and
the coarsest up block.

Differs: the paper's boxes come from a user. Ours are fixed, so this method knows the layout, which the other methods do
not (an *oracle*). The published loop no longer evaluates the energy once it was low enough; ours does in every step.
The tokens of an object are averaged before the energy is squared (published: after). Step sizes are converted from
variance-exploding latents to the scheduler's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.geometry import BASIC, Box
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import LossAndProbability, LossOutput, ObjectPair, StepInfo, pack_relations
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer, MapSpec

# Boxes (x0, y0, x1, y1) as fractions of the image; per predicate that of the subject and that of the reference.
LEFT, RIGHT = (0.05, 0.2, 0.45, 0.8), (0.55, 0.2, 0.95, 0.8)
TOP, BOTTOM = (0.2, 0.05, 0.8, 0.45), (0.2, 0.55, 0.8, 0.95)
BOXES: Mapping[str, tuple[Box, Box]] = {
    "left of": (LEFT, RIGHT),
    "right of": (RIGHT, LEFT),
    "above": (TOP, BOTTOM),
    "below": (BOTTOM, TOP),
}


def middle_and_first_up(layers: Sequence[MapLayer], height: int, width: int) -> list[MapLayer]:
    """Return the layers of the middle block and of the first up block that has attention."""
    up = [layer.name.split(".")[1] for layer in layers if layer.name.startswith("up_blocks")]
    wanted = ("mid_block.", f"up_blocks.{min(up, key=int)}." if up else "mid_block.")
    return [layer for layer in layers if layer.name.startswith(wanted)]


class LayoutGuidance:
    """Loss of a relation, the energy: mean over its two objects, layers and heads of (1 - share in the box) squared.

    The probability is 1 minus the energy, so the published target 0.2 is a threshold of 0.8.
    """

    schedule: Mapping[str, Any] = {
        "profile": "layout-guidance",
        "by_step_index": True,
        "window": 0.2,
        "iterations": 5,
        "max_iterations": 10_000,
        "step_size": 30.0,
        "by_variance": True,
        "normalised": False,
        "threshold": 0.8,
        "stop": "worst",
    }
    spec = MapSpec(choose=middle_and_first_up)

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "layout guidance")

    def predicates(self) -> tuple[str, ...]:
        """The four basic predicates."""
        return BASIC

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            boxes = zip((pair.subject, pair.reference), BOXES[pair.predicate], strict=True)
            energies = [energy(layer[sample, number], box).mean() for number, box in boxes for layer in maps.layers]
            mean = torch.stack(energies).mean()
            return mean, 1 - mean

        return pack_relations(object_pairs, loss_of)


def energy(maps: Float[Tensor, "*batch height width"], box: Box) -> Float[Tensor, "*batch"]:
    """Return (1 - share of the attention inside the box) squared.

    Args:
        maps: Attention maps.
        box: Corners (x0, y0, x1, y1) as fractions of the image.

    Returns:
        One value per map, in [0, 1].
    """
    rows, columns = maps.shape[-2:]
    inside = maps[
        ..., int(box[1] * rows) : max(int(box[3] * rows), 1), int(box[0] * columns) : max(int(box[2] * columns), 1)
    ]
    share: Tensor = inside.sum((-2, -1)) / maps.sum((-2, -1))
    return (1 - share) ** 2


def build(layout: Layout) -> LayoutGuidance:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "layout guidance")
    return LayoutGuidance()
