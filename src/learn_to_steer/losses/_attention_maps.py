"""What the handcrafted losses compute from attention maps: one map per object, its centre and its spread.

Source: preprocessing as in Attend-and-Excite (arXiv 2301.13826, section 3.2 and the authors'
``pipeline_attend_and_excite.py``) and the methods built on its code: mean over the 16 x 16 cross-attention layers and
their heads, a second softmax over the text tokens of the maps times a factor, a small Gaussian kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.geometry import BASIC, DIRECTIONS
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer

SIDE = 16  # the published constants are chosen for maps of 16 x 16: 512 pixels divided by 32
LAST = SIDE - 1.0  # coordinate of the last cell of such a map
SOFTMAX_FACTOR = 100.0
KERNEL_WIDTH = 0.5
# Predicate -> axis (0: x, 1: y), and whether the subject has the smaller coordinate.
SIDES = {predicate: DIRECTIONS[predicate][0] for predicate in BASIC}


def is_unet(layout: Layout) -> bool:
    """Whether the maps come from a UNet."""
    return any(layer.name.startswith("up_blocks") for layer in layout.layers)


def require_unet(layout: Layout, method: str) -> None:
    """Raise UnsupportedError, naming the method, unless the maps come from a UNet."""
    if not is_unet(layout):
        raise UnsupportedError(
            f"{method} reads the 16 x 16 cross-attention of a UNet, and its constants are made for it; the family "
            f"{layout.family!r} has none. Handcrafted losses for it: for-spatial, for-logistic"
        )


def is_sd2_layout(layout: Layout) -> bool:
    """Whether the maps come from an SD2.x UNet, where two papers exclude end and padding from the second softmax.

    SD2.x has more heads in layers of more channels; SD1.x has eight in every layer.
    """
    return len({layer.heads for layer in layout.layers}) > 1


def layers_nearest_16x16(layers: Sequence[MapLayer], height: int, width: int) -> list[MapLayer]:
    """Return the layers whose maps are nearest to 16 x 16 in area; at 512 pixels these are the papers' layers."""

    def distance(layer: MapLayer) -> float:
        rows, columns = layer.size(height, width)
        return abs(math.log(rows * columns / SIDE**2))

    nearest = min(distance(layer) for layer in layers)
    return [layer for layer in layers if distance(layer) == nearest]


def mean_map(maps: AttentionMaps) -> Float[Tensor, "batch columns height width"]:
    """Return the mean over layers (of one resolution) and heads; the columns are objects or text tokens."""
    return torch.cat(maps.layers, dim=2).mean(dim=2)


def object_maps(
    maps: AttentionMaps, factor: float | None = SOFTMAX_FACTOR, smooth: bool = True, words_only: bool = False
) -> Float[Tensor, "batch objects height width"]:
    """Return one map per object, from the maps of all text tokens.

    An object of several tokens is the mean of their maps (the papers take one token, or the first two).

    Args:
        maps: Maps of every text token.
        factor: Factor of the maps before the second softmax over tokens, which excludes the first and the last token;
            None for no second softmax.
        smooth: Whether to blur the maps.
        words_only: Exclude end and padding too, which get most of the attention in SD2.x.
    """
    assert maps.objects is not None and maps.words is not None
    attention = mean_map(maps)
    if factor is not None:
        kept = maps.words if words_only else torch.ones_like(maps.words)
        if not words_only:
            kept = kept.clone()
            kept[:, [0, -1]] = False
        hidden = ~kept[:, :, None, None]
        attention = (factor * attention).masked_fill(hidden, float("-inf")).softmax(dim=1)
    averaged = torch.einsum("bchw,boc->bohw", attention, maps.objects)
    return blur(averaged) if smooth else averaged


def blur(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Convolve maps with a 3 x 3 kernel of weights exp(-(u^2 + v^2) / (2 s)^2), s = 0.5, reflecting the edges.

    This is the published kernel; as a Gaussian its standard deviation is s times the square root of two.
    """
    line = torch.exp(-((torch.arange(-1.0, 2.0, device=maps.device) / (2 * KERNEL_WIDTH)) ** 2))
    kernel = line[:, None] * line[None]
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    padded = functional.pad(flat, (1, 1, 1, 1), mode="reflect")
    return functional.conv2d(padded, (kernel / kernel.sum())[None, None]).reshape(maps.shape)


def normalise(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Scale every map to sum one."""
    return maps / maps.sum((-2, -1), keepdim=True)


def coordinates(size: int, last: float, like: Float[Tensor, "..."]) -> Float[Tensor, " size"]:
    """Return the coordinates of ``size`` cells, evenly from 0 to ``last``; device and dtype of ``like``."""
    return torch.linspace(0, last, size, device=like.device, dtype=like.dtype)


def centre_of_mass(maps: Float[Tensor, "*batch height width"], last: float) -> Float[Tensor, "*batch 2"]:
    """Return the mean position (x, y) of every map, weighted by it; both axes run from 0 to ``last``."""
    weights = normalise(maps)
    x = (weights.sum(-2) * coordinates(maps.shape[-1], last, maps)).sum(-1)
    y = (weights.sum(-1) * coordinates(maps.shape[-2], last, maps)).sum(-1)
    return torch.stack([x, y], dim=-1)


def spatial_variance(maps: Float[Tensor, "*batch height width"], last: float) -> Float[Tensor, "*batch"]:
    """Return the mean squared distance from the centre of mass, weighted by the map; axes as ``centre_of_mass``."""
    weights = normalise(maps)
    centre = centre_of_mass(maps, last)
    x = (coordinates(maps.shape[-1], last, maps) - centre[..., :1]) ** 2
    y = (coordinates(maps.shape[-2], last, maps) - centre[..., 1:]) ** 2
    return (weights * (y[..., :, None] + x[..., None, :])).sum((-2, -1))


def signed_separation(
    predicate: str, subject: Float[Tensor, "*batch 2"], reference: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch"]:
    """Return the distance of two centres (x, y) along the axis of a relation; negative if it does not hold.

    Args:
        predicate: One of the four basic predicates.
        subject: Centre of the first object.
        reference: Centre of the second object, in the same units.
    """
    axis, smaller = SIDES[predicate]
    apart = reference[..., axis] - subject[..., axis]
    return apart if smaller else -apart
