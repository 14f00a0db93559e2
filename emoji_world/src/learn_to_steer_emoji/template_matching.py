"""Template matching: which sprites an image shows, without a trained network.

Stage one scores windows of every place and size with one filter for every sprite, angle and flip: see
``template_filters``.

Stage two looks at the best of them more closely. A pose is a sprite with a position, a size, an angle and maybe
mirrored. It is refined to explain as much as possible of the variance of its window, which is fitted by the sprite on a
flat colour, and by a flat colour alone, both by least squares: the explained variance is one minus the ratio of the two
squared residuals (1 is a perfect fit). Image and sprites are compared at a low resolution, since models draw no fine
detail right, and in their own colours, so that most sprites tinted in another colour are not found.

The score of a sprite combines both numbers. Of overlapping sprites the best one stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import Box, Detection
from learn_to_steer.image_files import to_rgb
from learn_to_steer_emoji import template_filters
from learn_to_steer_emoji.sprites import atlas, object_names
from learn_to_steer_emoji.template_filters import CELL, POSES, SPRITE, WINDOW

FINE = 64  # height of the image in stage two, in pixels
FRAME = 20  # side of a sprite's window in stage two, in pixels
RIM = 3  # side of the square by which a sprite's opaque area is dilated in stage two, in pixels of the window
MARGIN = 1.15  # side of a window over the side of its sprite
SIZES = tuple(0.21 * 1.15**k for k in range(9))  # of sprites in stage one, as shares of the image's height
BORDER = 2  # cells by which an image is padded in stage one
CANDIDATES = 20  # poses that stage one leaves
FINALISTS = 10  # of which so many are refined twice
LEAST = -2.0  # stage one's score of a candidate
BEHIND = 12.0  # how far a candidate's score in stage one may lie below that of another class beside it
SAME_POSE = 0.35  # of a sprite's side: closer candidates of one class are one
SAME_SPOT = 0.5  # of two sprites' mean side: closer centres are one object
COVERED = 0.5  # of the smaller of two boxes: boxes that share more are one object
# By logistic regression on drawn pictures, see training/template_threshold.py.
WEIGHTS: tuple[float, ...] = (-4.06, 2.22, 7.03)  # of 1, of stage one's score / 10, and of explained variance
HIGHEST = 30.0  # stage one's score above which it counts no more
THRESHOLD = 0.45  # the least score at which a sprite counts as present


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


class Candidate(NamedTuple):
    """A sprite that an image may show.

    Attributes:
        name: Its class.
        evidence: Stage one's score, and the explained variance.
        centre: Of the sprite, in pixels.
        size: Side of the sprite, in pixels.
        box: Around its visible part, in pixels.
    """

    name: str
    evidence: tuple[float, float]
    centre: tuple[float, float]
    size: float
    box: Box


def find(image: Image.Image, threshold: float = THRESHOLD) -> list[Detection]:
    """Find the sprites in an image.

    Args:
        image: The image. Sprites are found if their side is about 0.2 to 0.65 of its height and they are rotated by at
            most about 30 degrees.
        threshold: The least score of a detection.

    Returns:
        The detections, best first: names without aliases, scores in [0, 1], and boxes around the visible part of the
        sprites, in pixels.
    """
    return selected(candidates(image), threshold)


def selected(poses: Sequence[Candidate], threshold: float = THRESHOLD) -> list[Detection]:
    """Select the candidates that count as present.

    Args:
        poses: All candidates in an image.
        threshold: The least score of a detection.

    Returns:
        The detections, best first. None of them covers another.
    """
    kept: list[Candidate] = []
    detections: list[Detection] = []
    for pose in sorted(poses, key=probability, reverse=True):
        score = probability(pose)
        if score >= threshold and not any(_is_one_object(pose, other) for other in kept):
            kept.append(pose)
            detections.append(Detection(pose.name, score, pose.box))
    return detections


def probability(pose: Candidate) -> float:
    """Return the score of a candidate, in [0, 1]."""
    return 1 / (1 + math.exp(-sum(w * value for w, value in zip(WEIGHTS, features(pose), strict=True))))


def features(pose: Candidate) -> tuple[float, ...]:
    """Return what ``WEIGHTS`` weigh."""
    filtered, explained = pose.evidence
    return (1.0, min(filtered, HIGHEST) / 10, explained)


def _is_one_object(first: Candidate, second: Candidate) -> bool:
    if math.dist(first.centre, second.centre) < SAME_SPOT * (first.size + second.size) / 2:
        return True
    width = min(first.box[2], second.box[2]) - max(first.box[0], second.box[0])
    height = min(first.box[3], second.box[3]) - max(first.box[1], second.box[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first.box, second.box))
    return width > 0 and height > 0 and width * height > COVERED * smaller


@torch.no_grad()
def candidates(image: Image.Image) -> list[Candidate]:
    """Find all poses that may be a sprite.

    Args:
        image: The image.

    Returns:
        The candidates, several of an object and most of them wrong.
    """
    image = to_rgb(image)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None] / 255
    poses, filtered = _candidates(pixels)
    if not len(filtered):
        return []
    fine = functional.interpolate(
        pixels, (FINE, max(round(FINE * image.width / image.height), 1)), mode="bilinear", antialias=True
    )
    poses, explained = _refined(fine, poses, shift=0.025, grow=0.07, turn=7.0)
    best = (explained + filtered.clamp(max=HIGHEST) / 40).argsort(descending=True)[:FINALISTS]
    poses, filtered = poses.take(best), filtered[best]
    poses, explained = _refined(fine, poses, shift=0.01, grow=0.03, turn=3.0)
    return [
        Candidate(
            object_names()[int(poses.kind[n])],
            evidence,
            (float(poses.x[n]) * image.height, float(poses.y[n]) * image.height),
            float(poses.size[n]) * image.height,
            _visible_box(poses, n, image.height, image.width),
        )
        for n, evidence in enumerate(zip(filtered.tolist(), explained.tolist(), strict=True))
    ]


def _candidates(image: Tensor) -> tuple[_Poses, Tensor]:
    """Stage one: the best poses in an image (1, 3, height, width), and their scores."""
    height, width = image.shape[2:]
    table = torch.cat([_peaks(image, SPRITE / size, width / height) for size in SIZES])
    kept: list[list[float]] = []
    for row in table[table[:, 0].argsort(descending=True)].tolist():
        if len(kept) == CANDIDATES:
            break
        if all(row[1] != k[1] or math.hypot(row[2] - k[2], row[3] - k[3]) > SAME_POSE * k[4] for k in kept):
            kept.append(row)
    columns = torch.tensor(kept).view(-1, 7).T
    return _Poses(columns[1].long(), *columns[2:]), columns[0]


def _peaks(image: Tensor, height: float, aspect: float) -> Tensor:
    """Score windows of an image scaled to about ``height``: rows of score, class, x, y, size, angle and flip."""
    rows, columns = (max(round(side / CELL), 1) for side in (height, height * aspect))
    scaled = functional.interpolate(image, (rows * CELL, columns * CELL), mode="bilinear", antialias=True)
    padded = functional.pad(scaled, (BORDER * CELL,) * 4, mode="replicate")
    if min(padded.shape[2:]) < WINDOW * CELL:
        return torch.empty(0, 7)
    score, pose = template_filters.scores(padded, template_filters.packaged())
    beside = functional.max_pool2d(score.max(0).values[None], 3, stride=1, padding=1)
    peaks = (score == functional.max_pool2d(score, 3, stride=1, padding=1)) & (score > beside - BEHIND)
    values, places = score.where(peaks, -torch.inf).flatten().topk(min(CANDIDATES, score.numel()))
    places = places[values > LEAST]
    kind, row, column = torch.unravel_index(places, score.shape)

    def at(down: int, across: int) -> Tensor:
        return score[kind, (row + down).clamp(0, score.shape[1] - 1), (column + across).clamp(0, score.shape[2] - 1)]

    y = (row + _offset(at(-1, 0), at(0, 0), at(1, 0)) - BORDER + WINDOW / 2) / rows
    x = (column + _offset(at(0, -1), at(0, 0), at(0, 1)) - BORDER + WINDOW / 2) / columns * aspect
    turned = torch.tensor(POSES)[pose[kind, row, column]]
    size = torch.full_like(x, SPRITE / (rows * CELL))
    return torch.stack([at(0, 0), kind.float(), x, y, size, turned[:, 0], turned[:, 1]], 1)


def _offset(before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """Where a parabola through three neighbouring scores is highest, from the middle one, in [-0.5, 0.5]."""
    bend = before - 2 * here + after
    return torch.where(bend < 0, (before - after) / (2 * bend), 0.0).nan_to_num(0.0).clamp(-0.5, 0.5)


@cache
def _templates() -> Tensor:
    """Draw every sprite in a window: RGB multiplied by alpha, and 1 - alpha, (classes, 4, FRAME, FRAME)."""
    sheet = functional.interpolate(atlas(), (round(FRAME / MARGIN * 1.5),) * 2, mode="bilinear", antialias=True)
    theta = torch.tensor([[MARGIN, 0.0, 0.0], [0.0, MARGIN, 0.0]]).expand(len(sheet), 2, 3)
    grid = functional.affine_grid(theta, [len(sheet), 4, FRAME, FRAME], align_corners=False)
    drawn = functional.grid_sample(sheet, grid, align_corners=False)
    return torch.cat([drawn[:, :3], 1 - drawn[:, 3:]], 1)


def _refined(image: Tensor, poses: _Poses, shift: float, grow: float, turn: float) -> tuple[_Poses, Tensor]:
    """Stage two: the best of each pose and its neighbours, one step in x, y, size and angle; what it explains."""
    steps = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=4)))
    tried = _Poses(
        poses.kind[:, None].expand(-1, len(steps)),
        poses.x[:, None] + shift * steps[:, 0],
        poses.y[:, None] + shift * steps[:, 1],
        poses.size[:, None] * (1 + grow * steps[:, 2]),
        poses.angle[:, None] + turn * steps[:, 3],
        poses.flip[:, None].expand(-1, len(steps)),
    )
    explained, best = _explained(image, tried).max(1)
    return _Poses(*(field.gather(1, best[:, None])[:, 0] for field in tried)), explained


def _explained(image: Tensor, poses: _Poses) -> Tensor:
    """Compute how much of the variance of windows I the sprites T explain, each on its best flat background b.

    The windows are turned so that the sprite is upright. The residual is I - T - (1 - alpha) b.

    Args:
        image: The image (1, 3, height, width).
        poses: The poses (rows, variants), all of one sprite in a row.

    Returns:
        The explained variance (rows, variants).
    """
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
    templates = _templates()[poses.kind[:, 0]]
    # Only the sprite and a rim around it count, so that a neighbour in the window's corner does not.
    mask = (functional.max_pool2d(1 - templates[:, 3:], RIM, stride=1, padding=RIM // 2) > 0.1).float().flatten(1)
    colour = (templates[:, :3].flatten(2) * mask[:, None]).transpose(0, 1)[:, :, None]  # channel, row, 1, pixel
    behind = templates[:, 3].flatten(1) * mask  # row, pixel
    windows = windows * mask[:, None]
    area = mask.sum(1)[:, None]
    flat = torch.einsum("cnvp,cnvp->nv", windows, windows) - windows.sum(-1).square().sum(0) / area
    left = windows - colour
    free = behind.square().sum(1).clamp_min(1.0)[:, None]
    background = torch.einsum("cnvp,np->cnv", left, behind)
    residual = torch.einsum("cnvp,cnvp->nv", left, left) - background.square().sum(0) / free
    # In a window that is nearly flat, no sprite may reach a high score.
    return 1 - residual / flat.clamp_min(0.005 * area)


def _visible_box(poses: _Poses, index: int, height: int, width: int) -> Box:
    """Box in pixels around the part of a sprite whose alpha is above one half, cut off at the image's border."""
    transparency = _templates()[poses.kind[index], 3]
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
