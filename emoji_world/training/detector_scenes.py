"""Labelled images to train the detector on: scenes with near misses, and their augmentation.

A near miss must not be detected: half a sprite, two sprites fused along a cut, two sprites blended into each other, or
one so faded that it is hardly visible. Generated images are full of them. Each near miss is mixed from renderings of
one scene with and without the sprites in question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from learn_to_steer.geometry import Box
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Constraint, Placed, Scene, place, render
from learn_to_steer_emoji.sprites import TINTS, class_indices, object_names

HIDDEN = 0.3  # an object may be missed if more than this share of its box is covered or outside the image


@dataclass(frozen=True)
class Labels:
    """What an image shows. Objects are class numbers with boxes in pixels.

    Attributes:
        objects: Must be detected.
        ignored: May be detected or not.
        misses: Boxes of near misses, where nothing may be detected.
    """

    objects: tuple[tuple[int, Box], ...]
    ignored: tuple[tuple[int, Box], ...]
    misses: tuple[Box, ...]


def sample(
    count: int, rng: np.random.Generator, shape: tuple[int, int] = (128, 128), near_misses: float = 0.35
) -> tuple[torch.Tensor, list[Labels]]:
    """Draw scenes.

    Args:
        count: How many.
        rng: Drawn from.
        shape: Height and width of the images in pixels.
        near_misses: Share of the images with one near miss.

    Returns:
        Images (count, 3, height, width) in [0, 1], and their labels.
    """
    height, width = shape
    plain: list[Scene] = []
    extra: list[Scene] = []  # the same scenes with the first, then with the second sprite of the near miss
    missing: list[int] = []
    for index in range(count):
        scene, spare = _scene(rng, width / height, rng.random() < near_misses)
        plain.append(scene)
        if spare is not None:
            names = object_names()
            other = names[(names.index(spare.name) + rng.integers(1, len(names))) % len(names)]
            missing.append(index)
            extra.append(replace(scene, objects=(*scene.objects, spare)))
            extra.append(replace(scene, objects=(*scene.objects, replace(spare, name=other, flip=not spare.flip))))
    images, boxes = render([*plain, *extra], height, width)
    labels = [_labels(scene, around) for scene, around in zip(plain, boxes[:count], strict=True)]
    for turn, index in enumerate(missing):
        first, second = count + 2 * turn, count + 2 * turn + 1
        sprites = (extra[2 * turn].objects[-1], extra[2 * turn + 1].objects[-1])
        spots = (boxes[first][-1], boxes[second][-1])
        mixed, optional = _near_miss(images[index], images[first], images[second], spots, rng)
        images[index] = mixed
        ignored = tuple((class_indices()[sprites[k].name], spots[k]) for k in optional)
        labels[index] = replace(labels[index], ignored=(*labels[index].ignored, *ignored), misses=spots)
    return images[:count], labels


def _scene(rng: np.random.Generator, aspect: float, spare: bool) -> tuple[Scene, Placed | None]:
    """Draw a scene of one to five sprites, sometimes several of a kind or overlapping, and one for a near miss."""
    names, colors = object_names(), list(TINTS)
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.35, 0.2, 0.15, 0.1]))
    chosen = [names[i] for i in rng.choice(len(names), count, replace=False)]
    if count > 1 and rng.random() < 0.15:
        same = int(rng.integers(2, min(count, 4) + 1))
        chosen[:same] = [chosen[0]] * same
    overlapping = [Constraint(0, "is", 1)] if count == 2 and not spare and rng.random() < 0.15 else []
    placed = list(place([*chosen, names[rng.integers(len(names))]] if spare else chosen, rng, overlapping, aspect))
    placed = [replace(p, color=colors[rng.integers(len(colors))]) if rng.random() < 0.12 else p for p in placed]
    ground = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    kept = tuple(placed[:count])
    if spare and rng.random() < 0.1:
        kept = ()
    return Scene(kept, ground, int(rng.integers(1 << 31))), placed[-1] if spare else None


def _labels(scene: Scene, boxes: list[Box]) -> Labels:
    certain: list[tuple[int, Box]] = []
    ignored: list[tuple[int, Box]] = []
    for index, (placed, box) in enumerate(zip(scene.objects, boxes, strict=True)):
        covered = max((_share(box, later) for later in boxes[index + 1 :]), default=0.0)
        (ignored if covered > HIDDEN else certain).append((class_indices()[placed.name], box))
    return Labels(tuple(certain), tuple(ignored), ())


def _share(box: Box, cover: Box) -> float:
    """Return the share of ``box`` that lies within ``cover``."""
    width = max(0.0, min(box[2], cover[2]) - max(box[0], cover[0]))
    height = max(0.0, min(box[3], cover[3]) - max(box[1], cover[1]))
    return width * height / max((box[2] - box[0]) * (box[3] - box[1]), 1e-6)


def _near_miss(
    without: torch.Tensor, first: torch.Tensor, second: torch.Tensor, spots: tuple[Box, Box], rng: np.random.Generator
) -> tuple[torch.Tensor, list[int]]:
    """Mix the image without both sprites, with the first and with the second; also which of the two may be detected."""
    x0, y0, x1, y1 = spots[0]
    kind = rng.choice(["half", "fused", "blended", "faded"], p=[0.3, 0.3, 0.2, 0.2])
    if kind == "blended":
        share = float(rng.uniform(0.4, 0.6))
        return first * share + second * (1 - share), []
    if kind == "faded":
        share = float(rng.uniform(0.1, 0.6))
        return without * (1 - share) + first * share, [0] if share > 0.35 else []
    turn, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.12, 0.12) * (x1 - x0 + y1 - y0) / 2
    y, x = torch.meshgrid(torch.arange(first.shape[1]), torch.arange(first.shape[2]), indexing="ij")
    side = (x - (x0 + x1) / 2) * np.cos(turn) + (y - (y0 + y1) / 2) * np.sin(turn) > shift
    optional = []
    for k, (image, kept) in enumerate(((first, side), (second, ~side))):
        ink = (image - without).abs().sum(0) > 0.05
        if (ink & kept).sum() > 0.6 * ink.sum():
            optional.append(k)
    if kind == "half":
        return torch.where(side, first, without), [k for k in optional if k == 0]
    return torch.where(side, first, second), optional


def augment(images: torch.Tensor, labels: list[Labels], rng: np.random.Generator) -> tuple[torch.Tensor, list[Labels]]:
    """Vary images at random: flip, zoom, shift, warp, soften, recolour, hide small parts, add noise.

    Args:
        images: Images (n, 3, height, width) in [0, 1].
        labels: Their labels.
        rng: Drawn from.

    Returns:
        The varied images, and their labels.
    """
    n = len(images)
    torch_rng = torch.Generator().manual_seed(int(rng.integers(1 << 31)))

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=torch_rng)

    images, labels = _moved(images, labels, rng, torch_rng)
    order = torch.randperm(n, generator=torch_rng)
    soft = []
    for kind, part in enumerate(images[order].chunk(4)):
        size = part.shape[-2:]
        if kind == 1:  # soft like a decoder's output: smaller, and back
            small = functional.interpolate(part, scale_factor=float(rng.uniform(0.4, 0.9)), mode="area")
            part = functional.interpolate(small, size, mode="bilinear")
        elif kind == 2:
            part = _blurred(part, float(rng.uniform(0.4, 1.4)))
        elif kind == 3:  # JPEG keeps brightness and smears colour
            smeared = functional.interpolate(functional.avg_pool2d(part, 4), size, mode="bilinear")
            part = smeared + (part - smeared).mean(1, keepdim=True)
        soft.append(part)
    images = torch.cat(soft)[order.argsort()]
    for index in np.flatnonzero(rng.random(n) < 0.3):
        height, width = images.shape[-2:]
        h, w = rng.integers(4, 11, 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        images[index, :, y : y + h, x : x + w] = torch.rand(3, 1, 1, generator=torch_rng)
    tint = 1 + 0.12 * (torch.rand(n, 3, 1, 1, generator=torch_rng) - 0.5)
    images = ((images - 0.5) * uniform(0.75, 1.2) + 0.5) * tint + uniform(-0.08, 0.08)
    gray = images.mean(1, keepdim=True)
    images = gray + (images - gray) * uniform(0.7, 1.25)
    blotches = functional.interpolate(
        torch.randn(n, 3, 16, 16, generator=torch_rng), images.shape[-2:], mode="bilinear"
    )
    noise = torch.randn(images.shape, generator=torch_rng)
    loud = uniform(0, 1).square()
    return (images + 0.06 * loud * noise + 0.04 * uniform(0, 1).square() * blotches).clamp(0, 1), labels


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    kernel = torch.exp(-torch.arange(-4, 5).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    padded = functional.pad(images, (4, 4, 4, 4), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def _moved(
    images: torch.Tensor, labels: list[Labels], rng: np.random.Generator, torch_rng: torch.Generator
) -> tuple[torch.Tensor, list[Labels]]:
    """Flip, zoom and shift, and warp smoothly by up to about two pixels, which the boxes do not follow."""
    n, _, height, width = images.shape
    zoom = rng.uniform(0.92, 1.12, n) * np.where(rng.random(n) < 0.5, -1, 1)
    shift = rng.uniform(-0.08, 0.08, (n, 2))
    theta = np.zeros((n, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom, abs(zoom), shift
    grid = functional.affine_grid(torch.from_numpy(theta), [n, 3, height, width], align_corners=False)
    bend = torch.randn(n, 2, 5, 5, generator=torch_rng) * torch.rand(n, 1, 1, 1, generator=torch_rng) * 0.02
    grid = grid + functional.interpolate(bend, (height, width), mode="bilinear").permute(0, 2, 3, 1)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    frame = (0.0, 0.0, float(width), float(height))

    def moved(index: int, box: Box) -> Box:
        x, y = np.array(box[0::2]) / width * 2 - 1, np.array(box[1::2]) / height * 2 - 1
        xs = ((x - shift[index, 0]) / zoom[index] + 1) / 2 * width
        ys = ((y - shift[index, 1]) / abs(zoom[index]) + 1) / 2 * height
        return (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))

    def clipped(box: Box) -> Box:
        return (max(box[0], 0.0), max(box[1], 0.0), min(box[2], frame[2]), min(box[3], frame[3]))

    changed = []
    for index, label in enumerate(labels):
        objects = [(c, moved(index, box)) for c, box in label.objects]
        inside = [_share(box, frame) > 1 - HIDDEN / 2 for _, box in objects]
        certain = tuple((c, clipped(box)) for (c, box), seen in zip(objects, inside, strict=True) if seen)
        cut = tuple(entry for entry, seen in zip(objects, inside, strict=True) if not seen)
        optional = tuple((c, moved(index, box)) for c, box in label.ignored)
        changed.append(Labels(certain, cut + optional, tuple(moved(index, box) for box in label.misses)))
    return images, changed
