"""Scenes redrawn by the base model: the same objects at the same places, in the style of generated images.

Noise is added to a rendered scene, and ``sd:emoji`` removes it, with a caption that names the objects. The result is as
soft and as flawed as a generated image, but its boxes are known. Trained on such images, the detector works on
generated ones better than after training on rendered and blurred ones alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from safetensors.torch import load_file, save_file

from detector_scenes import Labels, sample
from learn_to_steer.loading import load_pipeline
from learn_to_steer.prompts import indefinite_article
from learn_to_steer_emoji.sprites import object_names
from loop import CHECKPOINTS

BATCH = 16
STRENGTH = (0.3, 0.7)  # range of img2img's strength: with more noise, objects change places
STEPS = 10  # of the whole noise schedule


def redrawn(count: int, seed: int) -> tuple[torch.Tensor, list[Labels]]:
    """Redraw scenes, or load them from the folder of the checkpoints if they were redrawn before.

    Args:
        count: How many.
        seed: Of the scenes and of the noise.

    Returns:
        Images (count, 3, 128, 128) in [0, 1], and their labels.
    """
    images, labels = sample(count, np.random.default_rng(seed), near_misses=0)
    pipe = load_pipeline("sd:emoji")
    weights = next(pipe.unet.parameters()).flatten()[:8].tolist()
    path = CHECKPOINTS / "redrawn" / f"{count}-{seed}-{abs(hash(tuple(weights))):x}.safetensors"
    if not path.exists():
        made = torch.cat(list(_redraw(pipe, images, labels, seed)))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"pictures": made}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
    return load_file(path)["pictures"].float() / 255, labels


def _redraw(pipe: Any, images: torch.Tensor, labels: list[Labels], seed: int) -> Iterator[torch.Tensor]:
    img2img = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    img2img.set_progress_bar_config(disable=True)
    rng = np.random.default_rng([seed, 1])
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        drawn = img2img(
            [_caption(label) for label in labels[part]],
            image=images[part],
            strength=float(rng.uniform(*STRENGTH)),
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(int(rng.integers(1 << 31))),
            output_type="pt",
        ).images
        yield (drawn * 255).round().to(torch.uint8)
        print(f"redrawn: {min(start + BATCH, len(images))} of {len(images)}", flush=True)


def _caption(label: Labels) -> str:
    names = [object_names()[c] for c, _ in (*label.objects, *label.ignored)]
    return " and ".join(f"{indefinite_article(name)} {name}" for name in names)
