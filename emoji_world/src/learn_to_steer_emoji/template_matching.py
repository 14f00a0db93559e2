"""A second opinion on what is in an emoji picture: template matching, nothing learned.

A pose of a sprite explains a window of the picture as well as the least-squares fit of *sprite on a flat
colour* beats a flat colour alone (explained variance, 1 = perfect). Stage one computes that for every
sprite, turn, flip and size at every place of a coarse copy of the picture, as convolutions; stage two
refines the best poses in the sprite's own frame. Colours are compared as they are, so a sprite tinted in
another colour is mostly not recognised.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from learn_to_steer.geometry import Box, Detection
from learn_to_steer_emoji.sprites import atlas, object_names

COARSE = 40  # pixels: height of the picture in stage one
FINE = 96  # pixels: height of the picture in stage two
FRAME = 28  # pixels: side of a sprite's window in stage two
RIM = 5  # pixels of the frame: width of the square that the ink is grown by
MARGIN = 1.15  # side of a window over side of its sprite
SIZES = tuple(0.23 * 1.15**k for k in range(7))  # sides as shares of the picture's height: 0.23 to 0.53
TURNS = tuple(product((-18.0, 0.0, 18.0), (1.0, -1.0)))  # degrees, and whether mirrored
CANDIDATES = 64
THRESHOLD = 0.475  # explained variance from which a sprite counts as present
SAME_SPOT = 0.5  # share of two sprites' mean side: closer centres are one object


class _Poses(NamedTuple):
    """Candidate sprites, each field (n,): class, centre and side (shares of the height), degrees, flip +1 or -1."""

    kind: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    size: torch.Tensor
    angle: torch.Tensor
    flip: torch.Tensor

    def take(self, index: torch.Tensor) -> _Poses:
        return _Poses(*(field[index] for field in self))


@torch.no_grad()
def find(picture: Image.Image, threshold: float = THRESHOLD) -> list[Detection]:
    """Sprites in ``picture``, best first: canonical names, explained variance as score, boxes of ink in pixels.

    Sprites whose side is about 0.2 to 0.6 of the picture's height are looked for, turned by up to 30 degrees.
    """
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()[None] / 255
    poses = _candidates(_resized(pixels, COARSE))
    fine = _resized(pixels, FINE)
    poses, scores = _refined(fine, poses, shift=0.02, grow=0.07, turn=7.0)
    best = scores.argsort(descending=True)[: CANDIDATES // 2]
    poses, scores = _refined(fine, poses.take(best), shift=0.008, grow=0.03, turn=3.0)
    found: list[Detection] = []
    taken: list[tuple[float, float, float]] = []
    for index in scores.argsort(descending=True).tolist():
        score = float(scores[index])
        x, y, size = (float(field[index]) for field in (poses.x, poses.y, poses.size))
        if score < threshold:
            break
        if all(math.hypot(x - u, y - v) >= SAME_SPOT * (size + s) / 2 for u, v, s in taken):
            taken.append((x, y, size))
            name = object_names()[int(poses.kind[index])]
            found.append(Detection(name, score, _ink_box(poses, index, picture.height, picture.width)))
    return found


def _resized(pixels: torch.Tensor, height: int) -> torch.Tensor:
    width = max(round(pixels.shape[3] * height / pixels.shape[2]), 1)
    return functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)


@lru_cache(maxsize=64)
def _templates(side: int, angle: float, flip: float) -> torch.Tensor:
    """Every sprite in a window of ``side`` pixels: premultiplied RGB and 1 - alpha, (classes, 4, side, side)."""
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
    squares: torch.Tensor,
    sums: torch.Tensor,
    crossed: torch.Tensor,
    behind: torch.Tensor,
    templates: torch.Tensor,
    area: torch.Tensor | float,
) -> torch.Tensor:
    """Explained variance of windows I by sprites T, each on its best flat background b.

    The residual of I ~ T + (1 - alpha) b is quadratic in b, so sums over the window are enough: of I squared,
    of I per channel (third axis from the right), of I T, and of (1 - alpha) I per channel. All broadcast over
    (..., class, [channel,] rows, columns); ``templates`` is (class, 4, side, side), ``area`` the window's pixels.
    """
    colour, spare = templates[:, :3], templates[:, 3:]
    own = colour.square().sum((1, 2, 3))[:, None, None]
    shadow = (colour * spare).sum((2, 3))[:, :, None, None]
    free = spare.square().sum((1, 2, 3)).clamp_min(1.0)[:, None, None]
    flat = squares - sums.square().sum(-3) / area
    residual = squares - 2 * crossed + own - (behind - shadow).square().sum(-3) / free
    # A window with hardly any variance of its own is not explained by anything.
    return 1 - residual / flat.clamp_min(0.005 * area)


def _candidates(picture: torch.Tensor) -> _Poses:
    """The best places of every sprite in a coarse picture (1, 3, h, w), one a class and spot."""
    pad = math.ceil(0.1 * COARSE)
    padded = functional.pad(picture, (pad, pad, pad, pad), mode="replicate")
    rows: list[torch.Tensor] = []
    turns = torch.tensor(TURNS)
    for wanted in SIZES:
        side = round(wanted * COARSE * MARGIN)
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


def _refined(
    picture: torch.Tensor, poses: _Poses, shift: float, grow: float, turn: float
) -> tuple[_Poses, torch.Tensor]:
    """Each pose's best neighbour and its score, out of the 81 that differ by one step in place, size or angle."""
    steps = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=4)))
    tried = _Poses(
        poses.kind[:, None].expand(-1, len(steps)),
        poses.x[:, None] + shift * steps[:, 0],
        poses.y[:, None] + shift * steps[:, 1],
        poses.size[:, None] * (1 + grow * steps[:, 2]),
        poses.angle[:, None] + turn * steps[:, 3],
        poses.flip[:, None].expand(-1, len(steps)),
    )
    value, best = _scores(picture, tried).max(1)
    return _Poses(*(field.gather(1, best[:, None])[:, 0] for field in tried)), value


def _scores(picture: torch.Tensor, poses: _Poses) -> torch.Tensor:
    """Explained variance of poses (n, variants), measured in the upright frame of the sprite, one sprite a row."""
    radians = torch.deg2rad(poses.angle)
    half = poses.size * MARGIN / 2
    cos, sin = radians.cos() * half, radians.sin() * half
    # Shares of the height -> grid_sample's -1..1; the window's own -1..1 is turned, flipped and scaled into it.
    across = 2 * picture.shape[2] / picture.shape[3]
    to_x = torch.stack([poses.flip * cos * across, -sin * across, poses.x * across - 1], -1)
    to_y = torch.stack([poses.flip * sin * 2, cos * 2, poses.y * 2 - 1], -1)
    theta = torch.stack([to_x, to_y], -2).flatten(0, 1)
    grid = functional.affine_grid(theta, [len(theta), 3, FRAME, FRAME], align_corners=False)
    # One picture, many windows: stacked along the height of a single sample.
    seen = functional.grid_sample(picture, grid.reshape(1, -1, FRAME, 2), padding_mode="border", align_corners=False)
    windows = seen.view(3, *poses.x.shape, FRAME * FRAME)  # channel, row, variant, pixel
    templates = _templates(FRAME, 0.0, 1.0)[poses.kind[:, 0]]
    # Only ink and a rim around it count, so that a neighbour in the window's corner does not.
    window = functional.max_pool2d(1 - templates[:, 3:], RIM, stride=1, padding=RIM // 2) > 0.1
    templates = torch.cat([templates[:, :3], templates[:, 3:] * window], 1)
    mask, flat = window.float().flatten(1), templates.flatten(2)
    squares = torch.einsum("cnvp,np->nv", windows.square(), mask)
    sums = torch.einsum("cnvp,np->ncv", windows, mask)
    crossed = torch.einsum("cnvp,ncp->nv", windows, flat[:, :3])
    behind = torch.einsum("cnvp,np->ncv", windows, flat[:, 3])
    sums_of = (squares[..., None], sums[..., None], crossed[..., None], behind[..., None])
    return _explained(*sums_of, templates, mask.sum(1)[:, None, None])[..., 0]


def _ink_box(poses: _Poses, index: int, height: int, width: int) -> Box:
    """Pixel box around the sprite's visible alpha at one pose, cut at the picture's border."""
    spare = _templates(FRAME, 0.0, 1.0)[poses.kind[index], 3]
    v, u = ((spare < 0.5).nonzero().T + 0.5) / FRAME * 2 - 1
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
