"""Whitened templates: one linear filter for every sprite and angle, which ranks the windows of an image.

A filter is the difference between the mean window that shows a sprite and the mean window that does not, divided by
the covariance of all windows: linear discriminant analysis. What many sprites share therefore counts little. Windows
are described by the mean colour and by the directions of edges in cells of 4 x 4 pixels, which small shifts and bends
hardly change. ``training/template_filters.py`` computes the filters in closed form from rendered sprites alone, and
stores them as sums of common filters. Mirrored sprites are found in the mirrored image.

Source: Hariharan, Malik, Ramanan, "Discriminative Decorrelation for Clustering and Classification", ECCV 2012.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from learn_to_steer.storage import load_tensors, sha256

CELL = 4  # side of a cell in pixels
SPRITE = 32  # side of a sprite in a window, in pixels
WINDOW = 9  # side of a window, in cells
DIRECTIONS = 8  # of edges, over half a turn: the sign of an edge does not count
CHANNELS = 3 + DIRECTIONS  # of a cell
SHARPNESS = 4.0  # how fast the weight of a direction falls with the angle to an edge
LEAST_EDGES = 0.08  # added to the edges around a cell, by which its own are divided: weak edges count as noise
ANGLES = (-16.0, 0.0, 16.0)  # of the sprites, in degrees
# Degrees, and -1 if mirrored. A mirrored sprite leans to the other side.
POSES = tuple((angle, 1.0) for angle in ANGLES) + tuple((-angle, -1.0) for angle in ANGLES)
FILE = "template_filters.safetensors"


class Filters(NamedTuple):
    """All filters, in the order of ``ANGLES`` and, within an angle, of the classes.

    Attributes:
        common: The common filters (rank, CHANNELS, WINDOW, WINDOW).
        mixture: What share each of them has in each filter (angles times classes, rank, 1, 1).
        bias: What is added to each filter's answer (angles times classes).
    """

    common: Float[Tensor, "rank channels window window"]
    mixture: Float[Tensor, "filters rank 1 1"]
    bias: Float[Tensor, " filters"]


def cells(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
    """Describe images by cells.

    Args:
        images: RGB in [0, 1]; height and width are multiples of ``CELL``.

    Returns:
        Of each cell its mean colour, and the strength of edges in each direction, relative to all edges around it.
    """
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strongest = (across.square() + down.square()).argmax(1, keepdim=True)  # of the three colours
    across, down = across.gather(1, strongest), down.gather(1, strongest)
    squared = across.square() + down.square() + 1e-8
    # Of the doubled angle, so that opposite directions are one.
    cosine, sine = (across.square() - down.square()) / squared, 2 * across * down / squared
    centres = (torch.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS).view(1, -1, 1, 1)
    weights = (SHARPNESS * (cosine * centres.cos() + sine * centres.sin() - 1)).exp()
    edges = functional.pad(weights * squared.sqrt(), (1, 1, 1, 1), mode="replicate")
    edges = functional.avg_pool2d(edges, CELL + 2, CELL)  # neighbouring cells share the pixels at their borders
    around = functional.avg_pool2d(edges.sum(1, keepdim=True), 3, stride=1, padding=1)
    return torch.cat([functional.avg_pool2d(images, CELL), edges / (around + LEAST_EDGES)], 1)


def scores(
    images: Float[Tensor, "1 3 height width"], filters: Filters
) -> tuple[Float[Tensor, "classes rows columns"], Tensor]:
    """Score every window of an image for every class.

    Args:
        images: One image whose sprites are to be ``SPRITE`` pixels wide.
        filters: The filters.

    Returns:
        The best score over the poses, at every cell that is a window's upper left corner, and the number of that pose.
    """
    shared = functional.conv2d(cells(torch.cat([images, images.flip(3)])), filters.common)
    upright, mirrored = functional.conv2d(shared, filters.mixture, filters.bias)
    answers = torch.cat([upright, mirrored.flip(2)])
    best = answers.view(len(POSES), -1, *answers.shape[1:]).max(0)
    return best.values, best.indices


@cache
def packaged() -> Filters:
    """Load the packaged filters, which are stored as eight-bit numbers and a scale for each of them."""
    stored, _ = load_tensors(_path())
    common = stored["common"].float() * stored["common_scale"].view(-1, 1, 1, 1)
    mixture = stored["mixture"].float() * stored["mixture_scale"][:, None]
    return Filters(common, mixture[:, :, None, None], stored["bias"])


def digest() -> str:
    """Return a digest of the packaged filters."""
    return sha256(_path())[:12]


def _path() -> Path:
    return Path(str(files(__package__).joinpath("data", FILE)))
