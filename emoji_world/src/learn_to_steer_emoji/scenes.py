"""Scenes: what stands where, sampled under constraints and rendered in batches with true boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, basic_relations, holds
from learn_to_steer_emoji import backgrounds
from learn_to_steer_emoji.sprites import TINTS, atlas, class_indices

# Longest side of a sprite as a share of the picture, by the number of objects in it.
SIZES = {1: (0.34, 0.52), 2: (0.30, 0.46), 3: (0.28, 0.38), 4: (0.26, 0.34), 5: (0.24, 0.30)}
ROOM = 0.92  # centres keep at least this share of the mean size apart: sprites may touch, hardly cover
CLOSE = 0.35  # the same for pairs that must have no clear axis


@dataclass(frozen=True)
class Placed:
    """One sprite in a scene. Lengths are shares of the picture's height; ``angle`` in degrees."""

    name: str
    x: float = 0.5
    y: float = 0.5
    size: float = 0.4
    angle: float = 0.0
    flip: bool = False
    color: str | None = None

    @property
    def box(self) -> Box:
        """The square the sprite is drawn in (its ink is usually a little narrower)."""
        half = self.size / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class Scene:
    """Sprites in drawing order on a named background; ``seed`` fixes the background's texture."""

    objects: tuple[Placed, ...]
    background: str = "white"
    seed: int = 0


@dataclass(frozen=True)
class Constraint:
    """``objects[subject] predicate objects[reference]`` must hold in a sampled scene.

    The predicate "is" asks for a pair without any clear axis.
    """

    subject: int
    predicate: str
    reference: int


def satisfied(boxes: Sequence[Box], constraint: Constraint) -> bool:
    """Whether ``constraint`` holds between ``boxes``; a basic relation must be the only one."""
    subject, reference = boxes[constraint.subject], boxes[constraint.reference]
    if constraint.predicate == "is":
        return not basic_relations(subject, reference)
    if not holds(subject, constraint.predicate, reference):
        return False
    # A basic relation has to be the dominant one: no second axis may claim the pair too.
    return " " in constraint.predicate.removesuffix(" of") or len(basic_relations(subject, reference)) == 1


def place(
    names: Sequence[str],
    rng: np.random.Generator,
    constraints: Sequence[Constraint] = (),
    aspect: float = 1.0,
    jitter: float = 12.0,
) -> tuple[Placed, ...]:
    """Sample sizes, positions, rotation (degrees, sd ``jitter``) and flips for ``names``.

    Overlap is limited to touching, except for pairs that must have no clear axis, which may overlap.
    ``aspect`` is width / height. Raises DataError when the constraints leave no room.
    """
    count = len(names)
    low, high = SIZES[min(count, 5)]
    close = {frozenset((c.subject, c.reference)) for c in constraints if c.predicate == "is"}
    for attempt in range(400):
        shrink = 0.98 ** (attempt // 8)
        sizes = rng.uniform(low, high, count) * shrink
        tries = 48
        xs = sizes / 2 + rng.random((tries, count)) * (aspect - sizes)
        ys = sizes / 2 + rng.random((tries, count)) * (1 - sizes)
        valid = np.ones(tries, dtype=bool)
        for i in range(count):
            for j in range(i):
                room = CLOSE if frozenset((i, j)) in close else ROOM
                distance = np.hypot(xs[:, i] - xs[:, j], ys[:, i] - ys[:, j])
                valid &= distance >= room * (sizes[i] + sizes[j]) / 2
        for row in np.flatnonzero(valid):
            boxes = [
                (x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in zip(xs[row], ys[row], sizes, strict=True)
            ]
            if all(satisfied(boxes, c) for c in constraints):
                return tuple(
                    Placed(
                        name,
                        float(xs[row, i]),
                        float(ys[row, i]),
                        float(sizes[i]),
                        float(np.clip(rng.normal(0, jitter), -25, 25)),
                        bool(rng.random() < 0.5),
                    )
                    for i, name in enumerate(names)
                )
    raise DataError(
        f"no layout of {list(names)} satisfies {list(constraints)}; "
        "ask for fewer objects, or for relations that can hold together"
    )


def render(
    scenes: Sequence[Scene], height: int = 128, width: int | None = None, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, list[list[Box]]]:
    """Draw scenes: RGB in [0, 1], shape (n, 3, height, width), and the pixel boxes of every object's ink.

    A box covers the visible alpha above one half, whether or not a later sprite is drawn over it.
    Deterministic: the same scenes give the same picture.
    """
    width = width or height
    device = torch.device(device)
    picture = backgrounds.draw([s.background for s in scenes], [s.seed for s in scenes], height, width, device)
    placed = [(n, p) for n, scene in enumerate(scenes) for p in scene.objects]
    if not placed:
        return picture, [[] for _ in scenes]
    patches = _patches([p for _, p in placed], height, device)
    boxes: list[list[Box]] = [[] for _ in scenes]
    for index, (n, _) in enumerate(placed):
        whole, x, y = patches[index]
        side = whole.shape[-1]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + side, width), min(y + side, height)
        if x0 >= x1 or y0 >= y1:
            raise DataError(f"object {index} of the batch lies outside the picture")
        patch = whole[:, y0 - y : y1 - y, x0 - x : x1 - x]
        window = picture[n, :, y0:y1, x0:x1]
        picture[n, :, y0:y1, x0:x1] = window * (1 - patch[3:]) + patch[:3]
        seen = patch[3] > 0.5
        columns, rows = seen.any(0).nonzero().flatten(), seen.any(1).nonzero().flatten()
        boxes[n].append(
            (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
            if len(columns)
            else (x0, y0, x0, y0)
        )
    return picture, boxes


Patch = tuple[torch.Tensor, int, int]
BUCKETS = (0.5, 0.7, math.inf)  # shares of a stored sprite's side: sprites of like size are drawn together


def pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """RGB in [0, 1], shape (n, 3, height, width), as ``render`` draws it, as pictures of eight bits a channel."""
    return [Image.fromarray((one * 255).round().byte().permute(1, 2, 0).numpy()) for one in pixels]


def _patches(placed: Sequence[Placed], height: int, device: torch.device) -> list[Patch]:
    """Every sprite turned, scaled and tinted, (4, side, side), and the integer corner to paste it at."""
    sheet = atlas().to(device)
    native = sheet.shape[-1]
    drawn: dict[int, Patch] = {}
    lower = 0.0
    for upper in BUCKETS:
        chosen = [i for i, p in enumerate(placed) if lower <= p.size * height / native < upper]
        lower = upper
        if chosen:
            # Bilinear sampling of a sprite drawn much smaller than it is stored would alias: halve it first.
            made = _bucket([placed[i] for i in chosen], height, sheet, halved=upper == BUCKETS[0])
            drawn |= dict(zip(chosen, made, strict=True))
    return [drawn[i] for i in range(len(placed))]


def _bucket(placed: Sequence[Placed], height: int, sheet: torch.Tensor, halved: bool) -> list[Patch]:
    classes = class_indices()
    side = math.ceil(max(p.size for p in placed) * height * 1.42) + 2
    corners = [(math.floor(p.x * height - side / 2), math.floor(p.y * height - side / 2)) for p in placed]
    matrices = []
    for p, (left, top) in zip(placed, corners, strict=True):
        # Maps patch coordinates (-1..1) to sprite coordinates (-1..1), sub-pixel rest included.
        scale = side / (p.size * height)
        cos, sin = math.cos(math.radians(p.angle)) * scale, math.sin(math.radians(p.angle)) * scale
        mirror = -1.0 if p.flip else 1.0
        dx = 2 * (p.x * height - left - side / 2) / side
        dy = 2 * (p.y * height - top - side / 2) / side
        across = [mirror * cos, mirror * sin, -mirror * (cos * dx + sin * dy)]
        matrices.append([across, [-sin, cos, sin * dx - cos * dy]])
    theta = torch.tensor(matrices, dtype=torch.float32, device=sheet.device)
    grid = functional.affine_grid(theta, [len(placed), 4, side, side], align_corners=False)
    source = sheet[[classes[p.name] for p in placed]]
    for index, p in enumerate(placed):
        if p.color is not None:
            source[index, :3] = _tinted(source[index], p.color)
    if halved:
        source = functional.interpolate(source, scale_factor=0.5, mode="area")
    patches = functional.grid_sample(source, grid, align_corners=False)
    return [(patch, left, top) for patch, (left, top) in zip(patches, corners, strict=True)]


def _tinted(sprite: torch.Tensor, color: str) -> torch.Tensor:
    """Premultiplied RGB of ``sprite`` (4, h, w) painted in ``color``, its shading kept."""
    alpha = sprite[3:]
    straight = sprite[:3] / alpha.clamp_min(1e-3)
    shade = straight.mul(torch.tensor([0.35, 0.5, 0.15], device=sprite.device).view(3, 1, 1)).sum(0, keepdim=True)
    paint = torch.tensor(TINTS[color], device=sprite.device).view(3, 1, 1)
    painted = paint * (0.35 + 0.75 * shade) + 0.25 * (shade - 0.5).clamp_min(0)
    return painted.clamp(0, 1) * alpha
