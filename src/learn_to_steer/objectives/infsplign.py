"""InfSplign: the predicted noise is pushed so that centres part the right way, and objects are compact and balanced.

*Source:* arXiv 2512.17851; constants as published with it: margin 0.25, slope 0.75, weights one, noise plus 1000
times the gradient, in every denoising step, one backward a step. Maps are resized to 64 x 64 with antialiasing;
coordinates run from 0 to 1.
*Differs:* the gradient is taken in a pass of its own with the conditional half, not in the guided one (the same
number, one forward more). The two coarsest levels of up blocks stand for ``up_blocks.1`` and ``up_blocks.2`` where a
UNet has others. An object is the mean of all its columns (published: the second word of two). Nearness, which the
published code handles, is no relation here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer, MapSpec
from learn_to_steer.objectives import _columns, _places, _verdicts
from learn_to_steer.objectives._protocol import NEVER, Clock, Pair, Verdict

SIDE = 64
MARGIN = 0.25
SLOPE = 0.75


def two_coarsest_up(layers: Sequence[MapLayer], height: int, width: int) -> list[MapLayer]:
    """Layers of the two coarsest levels among the up blocks."""
    up = [layer for layer in layers if layer.name.startswith("up_blocks")]
    levels = sorted({layer.level for layer in up}, reverse=True)[:2]
    return [layer for layer in up if layer.level in levels]


class InfSplign:
    """Loss of a relation, mean over layers: GELU(slope (margin - D)) plus a term on the objects' variances v.

    D is the signed separation in the wanted direction. The coarsest level adds v_s + v_o (presence), the next one
    |v_s - v_o| (balance). The probability is sigmoid(15 D), mean over layers: D in cells of a 16 x 16 map through
    FOR's logistic model. No stop rule is published.
    """

    schedule: Mapping[str, Any] = {
        "profile": "infsplign",
        "update": "prediction",
        "by_step_index": True,
        "window": 1.0,
        "passes": 1,
        "total_passes": 10_000,
        "rate": 1000.0,
        "normalised": False,
        "pick": "sum",
        "threshold": NEVER,
    }
    spec = MapSpec(choose=two_coarsest_up)

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "InfSplign")

    def predicates(self) -> tuple[str, ...]:
        return BASIC

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        coarsest = min(layer.shape[-2:].numel() for layer in maps.layers)
        shown = torch.stack([_resized(layer.mean(dim=2)) for layer in maps.layers], dim=2)
        centres, spread = _places.centre(shown, 1.0), _places.variance(shown, 1.0)  # (batch, objects, layers, ...)
        first = torch.tensor([layer.shape[-2:].numel() == coarsest for layer in maps.layers], device=shown.device)

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            apart = _places.separation(pair.predicate, centres[b, pair.subject], centres[b, pair.reference])
            mine, other = spread[b, pair.subject], spread[b, pair.reference]
            shape = torch.where(first, mine + other, (mine - other).abs())
            return (spatial(apart) + shape).mean(), torch.sigmoid((_columns.SIDE - 1) * apart).mean()

        return _verdicts.each(pairs, judge)


def spatial(apart: Tensor) -> Tensor:
    """GELU(slope (margin - D)) of a signed separation D in units of the picture's side."""
    return functional.gelu(SLOPE * (MARGIN - apart))


def _resized(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, (SIDE, SIDE), mode="bilinear", antialias=True)


def build(layout: Layout) -> InfSplign:
    """InfSplign for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "InfSplign")
    return InfSplign()
