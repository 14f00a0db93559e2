"""Training of LoRAs of ``sd:emoji``: a short loop, and the file that pipelines load; used by other scripts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def adapted(pipe: Any, rank: int) -> None:
    """Freeze ``pipe.unet`` and add new adapters to all of its attention layers."""
    pipe.unet.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))


def fit(
    pipe: Any,
    draw: Callable[[np.random.Generator, int], tuple[Tensor, list[str]]],
    folder: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> None:
    """Train the adapters of ``pipe.unet`` on the CPU, and save them.

    Args:
        pipe: The pipeline, after ``adapted``.
        draw: Draws as many clean latents (batch, ...) as its second argument says, and their captions.
        folder: Where the weights go.
        steps: Of training.
        batch: Images a step.
        rate: Learning rate. It falls to zero over the last quarter of the steps.
        seed: Of noise, times and ``draw``.
    """
    optimizer = torch.optim.AdamW([p for p in pipe.unet.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    rng, began = np.random.default_rng([seed, 1]), time.monotonic()
    for step in range(steps):
        torch.manual_seed(seed * 100_000 + step)
        clean, captions = draw(rng, batch)
        with torch.no_grad():
            text = pipe.encode_prompt(captions, "cpu", 1, False)[0]
        noise, times = torch.randn_like(clean), torch.randint(1000, (batch,))
        noisy = pipe.scheduler.add_noise(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            guess = pipe.unet(noisy, times, text).sample
        loss = (guess.float() - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, 4 * (1 - step / steps))
        optimizer.step()
        if (step + 1) % 25 == 0:
            left = (time.monotonic() - began) / (step + 1) * (steps - step - 1)
            print(f"{folder.name} {step + 1}/{steps}  loss {loss.item():.4f}  {left / 60:.0f} min left", flush=True)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
