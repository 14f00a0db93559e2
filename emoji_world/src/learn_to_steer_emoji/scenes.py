"""Scenes: layouts of sprites, sampled under constraints and rendered in batches, with the boxes of the objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, basic_relations, holds
from learn_to_steer_emoji import backgrounds
from learn_to_steer_emoji.sprites import TINTS, atlas, class_indices

# Range of a sprite's side as a share of the image's height, by the number of objects in the scene.
SIZES = {1: (0.34, 0.52), 2: (0.30, 0.46), 3: (0.28, 0.38), 4: (0.26, 0.34), 5: (0.24, 0.30)}
ROOM = 0.92  # least distance of two centres over the mean of the two sizes: sprites may touch but hardly overlap
CLOSE = 0.35  # the same for pairs that must have no clear axis
TRIES = 48  # layouts drawn at once
ROUNDS = 400  # of TRIES layouts each, before a set of constraints counts as impossible


@dataclass(frozen=True)
class Placed:
    """One sprite in a scene. All lengths are shares of the image's height.

    Attributes:
        name: The object, without aliases.
        x: Of the centre, from the left.
        y: Of the centre, from the top.
        size: Side of the square that the sprite is drawn in.
        angle: Rotation in degrees.
        flip: Whether the sprite is mirrored, left to right.
        color: A key of ``sprites.TINTS`` to tint it with; None for its own colours.
    """

    name: str
    x: float = 0.5
    y: float = 0.5
    size: float = 0.4
    angle: float = 0.0
    flip: bool = False
    color: str | None = None

    @property
    def box(self) -> Box:
        """The square that the sprite is drawn in; its visible part is usually a little narrower."""
        half = self.size / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class Scene:
    """Sprites on a background.

    Attributes:
        objects: In drawing order: a later sprite covers an earlier one.
        background: A key of ``backgrounds.BACKGROUNDS``.
        seed: Of the background's colours and texture.
    """

    objects: tuple[Placed, ...]
    background: str = "white"
    seed: int = 0


@dataclass(frozen=True)
class Constraint:
    """A relation that must hold between two objects of a sampled scene.

    Attributes:
        subject: Index of the object that is ``predicate`` of the other.
        predicate: A basic relation, a diagonal, or "is": no clear axis between the two.
        reference: Index of the other object.
    """

    subject: int
    predicate: str
    reference: int


def satisfied(boxes: Sequence[Box], constraint: Constraint) -> bool:
    """Return whether a constraint holds.

    Args:
        boxes: Of all objects, in any unit.
        constraint: The constraint. A basic relation holds only if no other basic relation holds too.

    Returns:
        Whether it holds.
    """
    subject, reference = boxes[constraint.subject], boxes[constraint.reference]
    if constraint.predicate == "is":
        return not basic_relations(subject, reference)
    if not holds(subject, constraint.predicate, reference):
        return False
    diagonal = " " in constraint.predicate.removesuffix(" of")
    return diagonal or len(basic_relations(subject, reference)) == 1


def place(
    names: Sequence[str],
    rng: np.random.Generator,
    constraints: Sequence[Constraint] = (),
    aspect: float = 1.0,
    jitter: float = 12.0,
) -> tuple[Placed, ...]:
    """Sample a layout: sizes, positions, rotations and flips.

    Sprites may touch but hardly overlap, except pairs that must have no clear axis. As long as no layout is found, the
    sprites slowly become smaller.

    Args:
        names: The objects. A name may be repeated.
        rng: Drawn from.
        constraints: Relations that must hold.
        aspect: Width of the image over its height.
        jitter: Standard deviation of the rotation in degrees; no sprite is rotated by more than 25.

    Returns:
        One sprite per name, in their order.

    Raises:
        DataError: No layout was found that satisfies the constraints.
    """
    count = len(names)
    low, high = SIZES[min(count, 5)]
    close = {frozenset((c.subject, c.reference)) for c in constraints if c.predicate == "is"}
    for attempt in range(ROUNDS):
        shrink = 0.98 ** (attempt // 8)
        sizes = rng.uniform(low, high, count) * shrink
        xs = sizes / 2 + rng.random((TRIES, count)) * (aspect - sizes)
        ys = sizes / 2 + rng.random((TRIES, count)) * (1 - sizes)
        valid = np.ones(TRIES, dtype=bool)
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
        "use fewer objects, or relations that can hold together"
    )


def render(
    scenes: Sequence[Scene], height: int = 128, width: int | None = None, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "scenes 3 height width"], list[list[Box]]]:
    """Draw scenes. The same scenes give the same images.

    Args:
        scenes: The scenes, all drawn at one size.
        height: In pixels.
        width: In pixels; None for ``height``.
        device: Where the images are drawn.

    Returns:
        The images, RGB in [0, 1], and a box in pixels for each object of each scene. A box encloses the pixels whose
        alpha is above one half, also where a later sprite covers them.

    Raises:
        DataError: An object lies outside the image.
    """
    width = width or height
    device = torch.device(device)
    images = backgrounds.draw([s.background for s in scenes], [s.seed for s in scenes], height, width, device)
    placed = [(n, p) for n, scene in enumerate(scenes) for p in scene.objects]
    if not placed:
        return images, [[] for _ in scenes]
    patches = _patches([p for _, p in placed], height, device)
    boxes: list[list[Box]] = [[] for _ in scenes]
    for index, (n, _) in enumerate(placed):
        whole, x, y = patches[index]
        side = whole.shape[-1]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + side, width), min(y + side, height)
        if x0 >= x1 or y0 >= y1:
            raise DataError(f"the {placed[index][1].name} of scene {n} lies outside the image; move it inside")
        patch = whole[:, y0 - y : y1 - y, x0 - x : x1 - x]
        window = images[n, :, y0:y1, x0:x1]
        images[n, :, y0:y1, x0:x1] = window * (1 - patch[3:]) + patch[:3]
        visible = patch[3] > 0.5
        columns, rows = visible.any(0).nonzero().flatten(), visible.any(1).nonzero().flatten()
        boxes[n].append(
            (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
            if len(columns)
            else (x0, y0, x0, y0)
        )
    return images, boxes


def to_pil(pixels: Float[Tensor, "batch 3 height width"]) -> list[Image.Image]:
    """Convert images from tensors to PIL.

    Args:
        pixels: RGB in [0, 1], on the CPU.

    Returns:
        The images, eight bits a channel.
    """
    return [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in pixels]


_Patch = tuple[Tensor, int, int]  # of pixels, and the column and row of its upper left corner in the image
BUCKETS = (0.5, 0.7, math.inf)  # drawn size over stored size: sprites between two bounds are drawn in one batch


def _patches(placed: Sequence[Placed], height: int, device: torch.device) -> list[_Patch]:
    """Turn, scale and tint every sprite: RGBA (4, side, side)."""
    sheet = atlas().to(device)
    native = sheet.shape[-1]
    drawn: dict[int, _Patch] = {}
    lower = 0.0
    for upper in BUCKETS:
        members = [i for i, p in enumerate(placed) if lower <= p.size * height / native < upper]
        lower = upper
        if members:
            # Bilinear sampling of a sprite drawn much smaller than it is stored would alias: halve it first.
            patches = _bucket([placed[i] for i in members], height, sheet, halved=upper == BUCKETS[0])
            drawn |= dict(zip(members, patches, strict=True))
    return [drawn[i] for i in range(len(placed))]


def _bucket(placed: Sequence[Placed], height: int, sheet: Tensor, halved: bool) -> list[_Patch]:
    classes = class_indices()
    side = math.ceil(max(p.size for p in placed) * height * 1.42) + 2
    corners = [(math.floor(p.x * height - side / 2), math.floor(p.y * height - side / 2)) for p in placed]
    matrices = []
    for p, (left, top) in zip(placed, corners, strict=True):
        # Maps coordinates in the patch to coordinates in the sprite, both from -1 to 1. The corner is a whole pixel;
        # dx and dy shift by what is left of the sprite's position.
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


def _tinted(sprite: Tensor, color: str) -> Tensor:
    """Return the RGB (3, height, width), multiplied by alpha, of a sprite painted in ``color``; its shading stays."""
    alpha = sprite[3:]
    straight = sprite[:3] / alpha.clamp_min(1e-3)
    shade = straight.mul(torch.tensor([0.35, 0.5, 0.15], device=sprite.device).view(3, 1, 1)).sum(0, keepdim=True)
    paint = torch.tensor(TINTS[color], device=sprite.device).view(3, 1, 1)
    painted = paint * (0.35 + 0.75 * shade) + 0.25 * (shade - 0.5).clamp_min(0)
    return painted.clamp(0, 1) * alpha
