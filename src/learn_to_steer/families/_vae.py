"""Images to the scaled latents of a diffusers VAE and back, as every family needs them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.families.base import Images

Latents = Float[Tensor, "batch channels latent_height latent_width"]


def encode(pipe: Any, images: Images) -> Latents:
    """Return the scaled latents, in fp32, of images with values in [0, 1]: the mode of the posterior, no sampling."""
    vae = pipe.vae
    with torch.no_grad():
        # The pipeline's device and not the VAE's: while offloaded, the VAE is on the CPU until it is called.
        images = images.to(pipe._execution_device, vae.dtype)
        latents: Tensor = vae.encode(images * 2 - 1).latent_dist.mode()
    return (latents.float() - (vae.config.shift_factor or 0.0)) * float(vae.config.scaling_factor)


def decode(vae: Any, latents: Latents) -> Images:
    """Return the images, with values in [0, 1], of scaled latents."""
    with torch.no_grad():
        scaled = (latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)).to(vae.dtype)
        images: Tensor = vae.decode(scaled).sample
    return (images.float() / 2 + 0.5).clamp(0, 1)
