"""Pictures to a diffusers VAE's scaled latents and back, as every family needs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Pictures (n, 3, H, W) in [0, 1] to scaled latents (n, channels, h, w), fp32 (posterior mean)."""
    vae = pipe.vae
    with torch.no_grad():
        # Not the VAE's own device: an offloaded one waits elsewhere until it is called.
        pictures = pictures.to(pipe._execution_device, vae.dtype)
        latents: Tensor = vae.encode(pictures * 2 - 1).latent_dist.mode()
    return (latents.float() - (vae.config.shift_factor or 0.0)) * float(vae.config.scaling_factor)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents (n, channels, h, w) to pictures (n, 3, H, W) in [0, 1]."""
    with torch.no_grad():
        scaled = (latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)).to(vae.dtype)
        pictures: Tensor = vae.decode(scaled).sample
    return (pictures.float() / 2 + 0.5).clamp(0, 1)
