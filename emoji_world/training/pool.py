"""Scenes to train a base model on: latents computed once, kept with the checkpoints; captions drawn anew."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

from learn_to_steer_emoji.captions import CaptionStyle, caption
from learn_to_steer_emoji.scenes import Scene, render
from learn_to_steer_emoji.sprites import class_indices
from learn_to_steer_emoji.world import WorldConfig, random_scenes
from loop import CHECKPOINTS, DEVICE, RANK, WORLD, autocast

CHUNK = 512
STEPS = 75  # until a further chunk joins
CLASSES = 1 + len(class_indices())  # 0 is background
# What the sample sheets show while a base model trains.
PROMPTS = (
    "a dog and a cat",
    "a photo of a teddy bear and a pizza",
    "a photo of a dog to the left of a teddy bear",
    "a cow above a suitcase",
    "a photo of a bird below a chair",
    "a skateboard to the right of a banana",
    "a robot and a turtle",
    "a zebra",
    "a vase, a sheep and a bus",
    "a photo of an elephant on the beach",
    "a red car and a laptop",
    "two horses",
    "a cup and a knife",
    "a mouse to the left of a bowl",
    "a photo of a stop sign above a kite",
    "a rabbit below a key",
)


class Pool:
    """Chunks of scenes that join as training goes on; every process has chunks of its own."""

    def __init__(
        self, vae: AutoencoderKL, chunks: int, world: WorldConfig | None = None, style: CaptionStyle | None = None
    ) -> None:
        """Start empty.

        Args:
            vae: Makes the latents.
            chunks: How many chunks a process has in the end.
            world: How scenes are drawn.
            style: How captions are written.
        """
        self.vae, self.chunks, self.world, self.style = vae, chunks, world or WorldConfig(), style
        told_apart = hashlib.sha256(f"{CHUNK} {self.world}".encode()).hexdigest()[:8]
        self.folder = CHECKPOINTS / f"latents-{told_apart}"
        self._latents: list[torch.Tensor] = []
        self._cells: list[torch.Tensor] = []
        self.scenes: list[Scene] = []

    def grow(self, step: int | None = None) -> None:
        """Draw the scenes of ``step``: one more chunk every STEPS steps; all of them at once without a ``step``."""
        wanted = self.chunks if step is None else min(self.chunks, 1 + step // STEPS)
        while len(self._latents) < wanted:
            began = time.monotonic()
            latents, scenes = self._chunk(len(self._latents) * WORLD + RANK)
            self._latents.append(latents)
            self._cells.append(cells_of(scenes))
            self.scenes.extend(scenes)
            if RANK == 0:
                print(f"pool of {WORLD * len(self.scenes)} scenes ({time.monotonic() - began:.0f} s)", flush=True)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        """Clean latents (count, 16, 16, 16), captions (one in ten empty), and the class of every latent cell."""
        rows = rng.integers(len(self.scenes), size=count)
        clean = self.latents(rows)
        captions = ["" if rng.random() < 0.1 else caption(self.scenes[r], rng, self.style) for r in rows]
        cells = torch.stack([self._cells[r // CHUNK][r % CHUNK] for r in rows]).long().to(DEVICE)
        return clean, captions, cells

    def latents(self, rows: np.ndarray) -> torch.Tensor:
        """Clean latents (n, 16, 16, 16) of the scenes ``rows``."""
        return torch.stack([self._latents[r // CHUNK][r % CHUNK] for r in rows]).float().to(DEVICE)

    def _chunk(self, index: int) -> tuple[torch.Tensor, list[Scene]]:
        scenes = random_scenes(CHUNK, seed=1000 + index, config=self.world)
        path = self.folder / f"{index}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts = []
            with torch.no_grad(), autocast():
                for start in range(0, CHUNK, 64):
                    pictures, _ = render(scenes[start : start + 64], 128, device=DEVICE)
                    latents = self.vae.encode(pictures * 2 - 1).latent_dist.mode() * self.vae.config.scaling_factor
                    parts.append(latents.half().cpu())
            temporary = path.with_suffix(f".{RANK}.tmp")
            save_file({"latents": torch.cat(parts)}, temporary)
            temporary.rename(path)
        return load_file(path)["latents"], scenes


def save_sheet(images: np.ndarray, path: Path) -> None:
    """Pictures (16, 128, 128, 3) in [0, 1] as two rows of eight."""
    sheet = images.reshape(2, 8, 128, 128, 3).transpose(0, 2, 1, 3, 4).reshape(256, 1024, 3)
    Image.fromarray((sheet * 255).round().astype(np.uint8)).save(path)


def cells_of(scenes: list[Scene]) -> torch.Tensor:
    """Class of every latent cell, shape (n, 16, 16); later sprites lie on top."""
    cells = torch.zeros(len(scenes), 16, 16, dtype=torch.uint8)
    centres = (torch.arange(16) + 0.5) / 16
    for row, scene in zip(cells, scenes, strict=True):
        for placed in scene.objects:
            x, y, half = placed.x, placed.y, placed.size * 0.45
            inside = ((centres - y).abs() < half)[:, None] & ((centres - x).abs() < half)[None]
            row[inside] = 1 + class_indices()[placed.name]
    return cells


def class_weights() -> torch.Tensor:
    """For the aid that names every cell: three quarters of the cells are background."""
    weights = torch.ones(CLASSES, device=DEVICE)
    weights[0] = 0.2
    return weights
