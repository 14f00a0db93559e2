"""Template matching: which sprites an image shows, with nothing learned.

A pose is a sprite with a position, a size, an angle and maybe mirrored. Its score in an image is the variance that it
explains: a window of the image is fitted by the sprite on a flat colour, and by a flat colour alone, both by least
squares; the score is one minus the ratio of the two squared residuals (1 is a perfect fit).

Stage one scores every sprite, angle, flip and size at every position of a coarse copy of the image, by convolutions.
Stage two refines the best poses, in the sprite's own frame. Colours are compared as they are, so that most sprites
tinted in another colour are not found.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import Box, Detection
from learn_to_steer.image_files import to_rgb
from learn_to_steer_emoji.sprites import atlas, object_names

COARSE = 40  # height of the image in stage one, in pixels
FINE = 96  # height of the image in stage two, in pixels
FRAME = 28  # side of a sprite's window in stage two, in pixels
RIM = 5  # side of the square by which a sprite's opaque area is dilated in stage two, in pixels of the window
MARGIN = 1.15  # side of a window over the side of its sprite
SIZES = tuple(0.23 * 1.15**k for k in range(7))  # of sprites in stage one, as shares of the image's height
TURNS = tuple(product((-18.0, 0.0, 18.0), (1.0, -1.0)))  # in stage one: angle in degrees, and -1 if mirrored
CANDIDATES = 64  # poses that stage one leaves
THRESHOLD = 0.475  # the least score at which a sprite counts as present
SAME_SPOT = 0.5  # of two sprites' mean side: closer centres are one object


class _Poses(NamedTuple):
    """Sprites in place, one number of each field for each of them."""

    kind: Tensor  # class number
    x: Tensor  # of the centre; lengths are shares of the image's height
    y: Tensor
    size: Tensor  # side of the sprite
    angle: Tensor  # degrees
    flip: Tensor  # -1 if mirrored, else 1

    def take(self, index: Tensor) -> _Poses:
        return _Poses(*(field[index] for field in self))


@torch.no_grad()
def find(image: Image.Image, threshold: float = THRESHOLD) -> list[Detection]:
    """Find the sprites in an image.

    Args:
        image: The image. Sprites are found if their side is about 0.2 to 0.6 of its height and they are rotated by at
            most about 30 degrees.
        threshold: The least score of a detection.

    Returns:
        The detections, best first: names without aliases, explained variance as scores, and boxes around the visible
        part of the sprites, in pixels.
    """
    image = to_rgb(image)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None] / 255
    poses = _candidates(_resized(pixels, COARSE))
    fine = _resized(pixels, FINE)
    poses, scores = _refined(fine, poses, shift=0.02, grow=0.07, turn=7.0)
    best = scores.argsort(descending=True)[: CANDIDATES // 2]
    poses, scores = _refined(fine, poses.take(best), shift=0.008, grow=0.03, turn=3.0)
    detections: list[Detection] = []
    taken: list[tuple[float, float, float]] = []
    for index in scores.argsort(descending=True).tolist():
        score = float(scores[index])
        x, y, size = (float(field[index]) for field in (poses.x, poses.y, poses.size))
        if score < threshold:
            break
        if all(math.hypot(x - u, y - v) >= SAME_SPOT * (size + s) / 2 for u, v, s in taken):
            taken.append((x, y, size))
            name = object_names()[int(poses.kind[index])]
            detections.append(Detection(name, score, _visible_box(poses, index, image.height, image.width)))
    return detections


def _resized(pixels: Tensor, height: int) -> Tensor:
    width = max(round(pixels.shape[3] * height / pixels.shape[2]), 1)
    return functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)


@lru_cache(maxsize=64)
def _templates(side: int, angle: float, flip: float) -> Tensor:
    """Draw every sprite in a window: RGB multiplied by alpha, and 1 - alpha, (classes, 4, side, side)."""
    sheet = atlas()
    inner = side / MARGIN
    if inner < sheet.shape[-1]:
        sheet = functional.interpolate(sheet, (max(round(inner * 1.5), 2),) * 2, mode="bilinear", antialias=True)
    cos, sin = math.cos(math.radians(angle)) * MARGIN, math.sin(math.radians(angle)) * MARGIN
    theta = torch.tensor([[flip * cos, flip * sin, 0.0], [-sin, cos, 0.0]]).expand(len(sheet), 2, 3)
    grid = functional.affine_grid(theta, [len(sheet), 4, side, side], align_corners=False)
    drawn = functional.grid_sample(sheet, grid, align_corners=False)
    return torch.cat([drawn[:, :3], 1 - drawn[:, 3:]], 1)


def _explained(
    squares: Tensor,
    sums: Tensor,
    crossed: Tensor,
    behind: Tensor,
    templates: Tensor,
    area: Tensor | float,
) -> Tensor:
    """Compute how much of the variance of windows I the sprites T explain, each on its best flat background b.

    The squared residual of I - T - (1 - alpha) b is quadratic in b, so that sums over the window are enough.

    The shapes below are those after broadcasting.

    Args:
        squares: Sum of I squared over pixels and channels (..., classes, rows, columns).
        sums: Sum of I over pixels (..., classes, channels, rows, columns).
        crossed: Sum of I T over pixels and channels (..., classes, rows, columns).
        behind: Sum of (1 - alpha) I over pixels (..., classes, channels, rows, columns).
        templates: RGB times alpha and 1 - alpha of the sprites (classes, 4, side, side).
        area: Number of pixels in a window.

    Returns:
        The explained variance (..., classes, rows, columns).
    """
    colour, transparency = templates[:, :3], templates[:, 3:]
    own = colour.square().sum((1, 2, 3))[:, None, None]
    shadow = (colour * transparency).sum((2, 3))[:, :, None, None]
    free = transparency.square().sum((1, 2, 3)).clamp_min(1.0)[:, None, None]
    flat = squares - sums.square().sum(-3) / area
    residual = squares - 2 * crossed + own - (behind - shadow).square().sum(-3) / free
    # In a window that is nearly flat, no sprite may reach a high score.
    return 1 - residual / flat.clamp_min(0.005 * area)


def _candidates(image: Tensor) -> _Poses:
    """Stage one: the best poses in a coarse image (1, 3, height, width), one for each class and place."""
    pad = math.ceil(0.1 * COARSE)
    padded = functional.pad(image, (pad, pad, pad, pad), mode="replicate")
    rows: list[Tensor] = []
    turns = torch.tensor(TURNS)
    for share in SIZES:
        side = round(share * COARSE * MARGIN)
        if side > min(padded.shape[2:]):
            continue
        area = side * side
        sums = functional.avg_pool2d(padded, side, stride=1)[0] * area
        squares = functional.avg_pool2d(padded.square(), side, stride=1)[0].sum(0) * area
        maps = []
        for angle, flip in TURNS:
            templates = _templates(side, angle, flip)
            crossed = functional.conv2d(padded, templates[:, :3])[0]
            behind = functional.conv2d(padded.transpose(0, 1), templates[:, 3:]).transpose(0, 1)
            maps.append(_explained(squares, sums, crossed, behind, templates, area))
        score, turned = torch.stack(maps).max(0)
        peaks = score.where(score == functional.max_pool2d(score, 5, stride=1, padding=2), -1.0)
        values, places = peaks.flatten(1).topk(min(4, peaks[0].numel()), dim=1)
        kind = torch.arange(len(score))[:, None].expand_as(places)
        y, x = places // score.shape[2], places % score.shape[2]
        choice = turns[turned.flatten(1).gather(1, places)]
        centre = [(v + side / 2 - pad) / COARSE for v in (x, y)]
        size = torch.full_like(values, side / MARGIN / COARSE)
        fields = [values, kind, *centre, size, choice[..., 0], choice[..., 1]]
        rows.append(torch.stack([field.float() for field in fields], -1).flatten(0, 1))
    table = torch.cat(rows)
    kept: list[list[float]] = []
    for row in table[table[:, 0].argsort(descending=True)].tolist():
        if len(kept) == CANDIDATES:
            break
        if all(row[1] != k[1] or math.hypot(row[2] - k[2], row[3] - k[3]) > 0.3 * k[4] for k in kept):
            kept.append(row)
    columns = torch.tensor(kept).T
    return _Poses(columns[1].long(), *columns[2:])


def _refined(image: Tensor, poses: _Poses, shift: float, grow: float, turn: float) -> tuple[_Poses, Tensor]:
    """Stage two: the best of each pose and its 80 neighbours (one step in x, y, size and angle), and its score."""
    steps = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=4)))
    tried = _Poses(
        poses.kind[:, None].expand(-1, len(steps)),
        poses.x[:, None] + shift * steps[:, 0],
        poses.y[:, None] + shift * steps[:, 1],
        poses.size[:, None] * (1 + grow * steps[:, 2]),
        poses.angle[:, None] + turn * steps[:, 3],
        poses.flip[:, None].expand(-1, len(steps)),
    )
    value, best = _scores(image, tried).max(1)
    return _Poses(*(field.gather(1, best[:, None])[:, 0] for field in tried)), value


def _scores(image: Tensor, poses: _Poses) -> Tensor:
    """Score poses (rows, variants), all of one sprite in a row, in windows turned so that the sprite is upright."""
    radians = torch.deg2rad(poses.angle)
    half = poses.size * MARGIN / 2
    cos, sin = radians.cos() * half, radians.sin() * half
    # From coordinates in the window (-1 to 1) to those that grid_sample wants in the image (-1 to 1).
    across = 2 * image.shape[2] / image.shape[3]
    to_x = torch.stack([poses.flip * cos * across, -sin * across, poses.x * across - 1], -1)
    to_y = torch.stack([poses.flip * sin * 2, cos * 2, poses.y * 2 - 1], -1)
    theta = torch.stack([to_x, to_y], -2).flatten(0, 1)
    grid = functional.affine_grid(theta, [len(theta), 3, FRAME, FRAME], align_corners=False)
    # The image is sampled once: its windows are stacked along the height.
    stacked = functional.grid_sample(image, grid.reshape(1, -1, FRAME, 2), padding_mode="border", align_corners=False)
    windows = stacked.view(3, *poses.x.shape, FRAME * FRAME)  # channel, row, variant, pixel
    templates = _templates(FRAME, 0.0, 1.0)[poses.kind[:, 0]]
    # Only the sprite and a rim around it count, so that a neighbour in the window's corner does not.
    window = functional.max_pool2d(1 - templates[:, 3:], RIM, stride=1, padding=RIM // 2) > 0.1
    templates = torch.cat([templates[:, :3], templates[:, 3:] * window], 1)
    mask, flat = window.float().flatten(1), templates.flatten(2)
    squares = torch.einsum("cnvp,np->nv", windows.square(), mask)
    sums = torch.einsum("cnvp,np->ncv", windows, mask)
    crossed = torch.einsum("cnvp,ncp->nv", windows, flat[:, :3])
    behind = torch.einsum("cnvp,np->ncv", windows, flat[:, 3])
    sums_of = (squares[..., None], sums[..., None], crossed[..., None], behind[..., None])
    return _explained(*sums_of, templates, mask.sum(1)[:, None, None])[..., 0]


def _visible_box(poses: _Poses, index: int, height: int, width: int) -> Box:
    """Box in pixels around the part of a sprite whose alpha is above one half, cut off at the image's border."""
    transparency = _templates(FRAME, 0.0, 1.0)[poses.kind[index], 3]
    v, u = ((transparency < 0.5).nonzero().T + 0.5) / FRAME * 2 - 1
    half = float(poses.size[index]) * MARGIN / 2
    angle = math.radians(float(poses.angle[index]))
    u = u * float(poses.flip[index])
    x = (float(poses.x[index]) + half * (math.cos(angle) * u - math.sin(angle) * v)) * height
    y = (float(poses.y[index]) + half * (math.sin(angle) * u + math.cos(angle) * v)) * height
    cell = half / FRAME * height
    return (
        max(float(x.min()) - cell, 0.0),
        max(float(y.min()) - cell, 0.0),
        min(float(x.max()) + cell, float(width)),
        min(float(y.max()) + cell, float(height)),
    )
