"""Compute the filters of template matching from rendered sprites, and write them into the package.

    python training/template_filters.py      # a minute of one core

Every class is rendered ``EACH`` times at each angle: on a random background, beside two other sprites, a little
misplaced, resized, turned, bent, softened and recoloured. Windows without a sprite in their middle show a sprite at
another place or of another size, or none. Nothing is trained: the filters follow from means and one covariance.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.storage import save_tensors
from learn_to_steer_emoji import backgrounds
from learn_to_steer_emoji.sprites import atlas
from learn_to_steer_emoji.template_filters import ANGLES, CELL, CHANNELS, FILE, SPRITE, WINDOW, cells
from loop import MODELS

EACH = 16  # windows of a class at an angle
OTHERS = 6000  # windows without a sprite in their middle
AROUND = 2  # cells rendered beyond a window on each side
BEND = 0.06  # of sprites, as a share of half their side
SHRINKAGE = 0.1  # of the covariance toward a multiple of the identity
RANK = 90  # number of common filters
SIDE = (WINDOW + 2 * AROUND) * CELL
GROUND = 96  # height of the backgrounds that windows are cut from, in pixels


class Renderer:
    """Renders windows around sprites, ``SIDE`` pixels a side."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.sheet = functional.interpolate(atlas(), scale_factor=0.5, mode="area")

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=self.generator)

    def integers(self, count: int, end: int) -> Tensor:
        return torch.randint(0, end, (count,), generator=self.generator)

    def flips(self, count: int) -> Tensor:
        return self.integers(count, 2) * 2.0 - 1

    def with_sprites(self, kinds: Tensor, angle: float) -> Tensor:
        """Windows (n, 3, SIDE, SIDE) with a sprite of each kind in the middle, turned by about ``angle`` degrees."""
        n = len(kinds)
        images = self._surroundings(n)
        x, y = self.uniform(n, -2, 2), self.uniform(n, -2, 2)
        size, turn = SPRITE * self.uniform(n, 0.93, 1.075), angle + self.uniform(n, -8, 8)
        return self._varied(self._paste(images, kinds, x, y, size, turn, torch.ones(n), BEND))

    def without_sprites(self, count: int) -> Tensor:
        """Windows (n, 3, SIDE, SIDE) with a sprite beside the middle, or of a wrong size there, or with none."""
        images = self._surroundings(count)
        share = torch.rand(count, generator=self.generator)
        turn, far = self.uniform(count, 0, 2 * math.pi), self.uniform(count, 0.25, 0.7) * SPRITE
        near, small = self.uniform(count, 0, 3), self.integers(count, 2) == 0
        wrong = torch.where(small, self.uniform(count, 0.45, 0.65), self.uniform(count, 1.55, 2.2))
        distance = torch.where(share < 0.5, far, near)
        size = SPRITE * torch.where(share < 0.5, self.uniform(count, 0.6, 1.7), wrong)
        x, y = distance * turn.cos(), distance * turn.sin()
        kinds, angle = self.integers(count, len(self.sheet)), self.uniform(count, -25, 25)
        shown = self._paste(images, kinds, x, y, size, angle, self.flips(count), BEND)
        return self._varied(torch.where((share < 0.8)[:, None, None, None], shown, images))

    def _surroundings(self, n: int) -> Tensor:
        """Cut backgrounds, and put two sprites on each, as near to the middle as they come in scenes."""
        grounds = list(backgrounds.BACKGROUNDS)
        names = [grounds[k] for k in self.integers(n, len(grounds)).tolist()]
        seeds = self.integers(n, 1 << 30).tolist()
        drawn = backgrounds.draw(names, seeds, GROUND, GROUND, torch.device("cpu"))
        corners = zip(self.integers(n, GROUND - SIDE).tolist(), self.integers(n, GROUND - SIDE).tolist(), strict=True)
        images = torch.stack([one[:, y : y + SIDE, x : x + SIDE] for one, (x, y) in zip(drawn, corners, strict=True)])
        for _ in range(2):
            turn, size = self.uniform(n, 0, 2 * math.pi), self.uniform(n, 0.8, 1.25) * SPRITE
            distance = self.uniform(n, 0.92, 1.5) * (size + SPRITE) / 2
            x, y = distance * turn.cos(), distance * turn.sin()
            kinds, angle = self.integers(n, len(self.sheet)), self.uniform(n, -20, 20)
            images = self._paste(images, kinds, x, y, size, angle, self.flips(n), 0.0)
        return images

    def _paste(
        self,
        images: Tensor,
        kinds: Tensor,
        x: Tensor,
        y: Tensor,
        size: Tensor,
        angle: Tensor,
        flip: Tensor,
        bend: float,
    ) -> Tensor:
        """Draw a sprite on each image; positions are in pixels from the middle, angles in degrees."""
        line = torch.arange(SIDE) + 0.5 - SIDE / 2
        down, across = torch.meshgrid(line, line, indexing="ij")
        half = (size / 2)[:, None, None]
        dx, dy = (across - x[:, None, None]) / half, (down - y[:, None, None]) / half
        cos, sin = (f(torch.deg2rad(angle))[:, None, None] for f in (torch.cos, torch.sin))
        grid = torch.stack([flip[:, None, None] * (cos * dx + sin * dy), cos * dy - sin * dx], -1)
        if bend:
            bent = torch.randn(len(images), 2, 4, 4, generator=self.generator) * bend
            bent = functional.interpolate(bent, (SIDE, SIDE), mode="bicubic", align_corners=True)
            grid = grid + bent.permute(0, 2, 3, 1)
        sprites = functional.grid_sample(self.sheet[kinds], grid, align_corners=False)
        return images * (1 - sprites[:, 3:]) + sprites[:, :3]

    def _varied(self, images: Tensor) -> Tensor:
        """Soften most windows, as decoders of latents do, and change contrast and colour a little."""
        n = len(images)
        share = torch.rand(n, 1, 1, 1, generator=self.generator)
        for limit, factor in ((0.8, 2), (0.35, 3)):
            small = functional.interpolate(images, (round(SIDE / factor),) * 2, mode="area")
            images = torch.where(share < limit, functional.interpolate(small, (SIDE, SIDE), mode="bilinear"), images)
        tint = 0.12 * (torch.rand(n, 3, 1, 1, generator=self.generator) - 0.5)
        return ((images - 0.5) * self.uniform(n, 0.8, 1.15)[:, None, None, None] + 0.5 + tint).clamp(0, 1)


def described(images: Tensor) -> Tensor:
    """Cells (n, channels, WINDOW, WINDOW) of the middle of rendered windows."""
    middle = slice(AROUND, AROUND + WINDOW)
    return cells(images)[:, :, middle, middle]


def statistics(renderer: Renderer) -> tuple[Tensor, Tensor, Tensor]:
    """Means of the classes (angles times classes, ...), mean of the other windows, and the covariance within them."""
    classes, size = len(renderer.sheet), CHANNELS * WINDOW * WINDOW
    means, scatter, degrees = [], torch.zeros(size, size), 0
    for angle in ANGLES:
        windows = described(renderer.with_sprites(torch.arange(classes).repeat(EACH), angle))
        windows = windows.reshape(EACH, classes, -1)
        means.append(windows.mean(0))
        apart = (windows - means[-1]).flatten(0, 1)
        scatter, degrees = scatter + apart.T @ apart, degrees + len(apart) - classes
    others = torch.cat([described(renderer.without_sprites(1000)).flatten(1) for _ in range(OTHERS // 1000)])
    apart = others - others.mean(0)
    return torch.cat(means), others.mean(0), (scatter + apart.T @ apart) / (degrees + len(apart))


def filters(renderer: Renderer) -> tuple[Tensor, Tensor, Tensor]:
    """Filters (angles times classes, size) and their biases, both divided so that the scores of classes compare.

    Also returns the Cholesky factor of the covariance.
    """
    means, others, covariance = statistics(renderer)
    covariance += SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(others))
    difference = means - others
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve(difference.T, factor).T
    bias = -(weights * (means + others) / 2).sum(1)
    scale = ((weights * difference).sum(1) / 2) ** 0.4
    return weights / scale[:, None], bias / scale, factor


def rounded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as eight-bit numbers, and the scale of each."""
    scale = tensor.abs().flatten(1).amax(1) / 127
    return (tensor / scale.view(-1, *[1] * (tensor.dim() - 1))).round().to(torch.int8), scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=RANK)
    options = parser.parse_args()
    weights, bias, factor = filters(Renderer(options.seed))
    # The sums that come nearest to the scores of windows, rather than to the filters.
    left, strength, right = torch.linalg.svd(weights @ factor, full_matrices=False)
    kept = strength[: options.rank].sqrt()
    shared = torch.linalg.solve_triangular(factor, kept[:, None] * right[: options.rank], upper=False, left=False)
    common, common_scale = rounded(shared.view(-1, CHANNELS, WINDOW, WINDOW))
    mixture, mixture_scale = rounded(left[:, : options.rank] * kept)
    tensors = {
        "common": common,
        "common_scale": common_scale,
        "mixture": mixture,
        "mixture_scale": mixture_scale,
        "bias": bias,
    }
    save_tensors(MODELS / FILE, {name: tensor.contiguous() for name, tensor in tensors.items()})
    lost = float(strength[options.rank :].square().sum() / strength.square().sum())
    print(
        f"{MODELS / FILE}: {len(weights)} filters as sums of {options.rank}, which leave out {lost:.3f} of the variance"
    )


if __name__ == "__main__":
    main()
