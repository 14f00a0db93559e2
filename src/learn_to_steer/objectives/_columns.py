"""Maps as the handcrafted losses see them: one map an object, from the UNet's coarse cross-attention.

*Source:* the Attend-and-Excite family (arXiv 2301.13826, and the methods built on its code): mean over the
layers of 16 x 16 and over heads, a second softmax over the text's columns with a factor, a small smoothing kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer

SIDE = 16  # what the published constants are made for: a 512-pixel picture at a 32nd of its size
SHARPNESS = 100.0
KERNEL_WIDTH = 0.5


def coarse(layers: Sequence[MapLayer], height: int, width: int) -> list[MapLayer]:
    """The layers of the resolution nearest to 16 x 16, by area; at 512 pixels exactly those the papers read."""

    def distance(layer: MapLayer) -> float:
        rows, columns = layer.size(height, width)
        return abs(math.log(rows * columns / SIDE**2))

    nearest = min(distance(layer) for layer in layers)
    return [layer for layer in layers if distance(layer) == nearest]


def mean_map(maps: AttentionMaps) -> Tensor:
    """Plain mean over layers (of one resolution) and heads: (batch, objects or columns, height, width)."""
    return torch.cat(maps.layers, dim=2).mean(dim=2)


def object_maps(
    maps: AttentionMaps, sharpness: float | None = SHARPNESS, smooth: bool = True, words_only: bool = False
) -> Tensor:
    """One map an object, (batch, objects, height, width), of maps of every column.

    ``sharpness`` is the factor before the second softmax over columns (None: no second softmax). That softmax leaves
    out the first and the last column; with ``words_only`` also end and padding, which SD2.x looks at most. An object
    of several sub-words is the mean of their columns (the papers take one, or the first two).
    """
    assert maps.objects is not None and maps.words is not None
    shown = mean_map(maps)
    if sharpness is not None:
        kept = maps.words if words_only else torch.ones_like(maps.words)
        if not words_only:
            kept = kept.clone()
            kept[:, [0, -1]] = False
        hidden = ~kept[:, :, None, None]
        shown = (sharpness * shown).masked_fill(hidden, float("-inf")).softmax(dim=1)
    found = torch.einsum("bchw,boc->bohw", shown, maps.objects)
    return smoothed(found) if smooth else found


def smoothed(maps: Tensor) -> Tensor:
    """A 3 x 3 blur, (..., height, width): weights exp(-(u^2 + v^2) / (2 s)^2), s = 0.5, edges reflected.

    That is the published kernel, whose standard deviation is s times the square root of two.
    """
    line = torch.exp(-((torch.arange(-1.0, 2.0, device=maps.device) / (2 * KERNEL_WIDTH)) ** 2))
    kernel = line[:, None] * line[None]
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    padded = functional.pad(flat, (1, 1, 1, 1), mode="reflect")
    return functional.conv2d(padded, (kernel / kernel.sum())[None, None]).reshape(maps.shape)


def ends_apart(layout: Layout) -> bool:
    """Whether this is an SD2.x UNet, for which two papers leave end and padding out of the second softmax.

    Told by its heads, which grow in number with the channels; SD1.x has eight in every layer.
    """
    return len({layer.heads for layer in layout.layers}) > 1


def is_unet(layout: Layout) -> bool:
    """Whether these are a UNet's maps."""
    return any(layer.name.startswith("up_blocks") for layer in layout.layers)


def need_unet(layout: Layout, what: str) -> None:
    """Raise UnsupportedError unless the maps are a UNet's; ``what`` names the method."""
    if not is_unet(layout):
        raise UnsupportedError(
            f"{what} reads the 16 x 16 cross-attention of a UNet, and its constants are made for it; the family "
            f"{layout.family!r} has none. Handcrafted objectives for it: for-spatial, for-logistic"
        )
