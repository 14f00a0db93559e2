"""Images to the scaled latents of a diffusers VAE and back, as every family needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.families.base import Images

Latents = Float[Tensor, "batch channels latent_height latent_width"]
Patches = Float[Tensor, "batch positions patch_channels"]


def encode(pipe: Any, images: Images) -> Latents:
    """Return the scaled latents, in fp32, of images with values in [0, 1]: the mode of the posterior, no sampling."""
    with torch.no_grad(), _upcast(pipe.vae) as vae:
        # The pipeline's device and not the VAE's: while offloaded, the VAE is on the CPU until it is called.
        pixels = images.to(pipe._execution_device, vae.dtype) * 2 - 1
        encoded = vae.encode(pixels[:, :, None] if _is_of_videos(vae) else pixels)
        latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
    latents = latents[:, :, 0] if latents.ndim == 5 else latents
    shift, scale = _statistics(vae, latents.float())
    return (latents.float() - shift) * scale


def decode(vae: Any, latents: Latents) -> Images:
    """Return the images, with values in [0, 1], of scaled latents."""
    shift, scale = _statistics(vae, latents)
    with torch.no_grad(), _upcast(vae):
        scaled = (latents / scale + shift).to(vae.dtype)
        decoded: Tensor = vae.decode(scaled[:, :, None] if _is_of_videos(vae) else scaled).sample
    images = decoded[:, :, 0] if decoded.ndim == 5 else decoded
    return (images.float() / 2 + 0.5).clamp(0, 1)


def packed(latents: Latents) -> Patches:
    """Return latents as a sequence of patches of 2 x 2 positions, row by row; channels come before places in them."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpacked(patches: Patches, height: int, width: int) -> Latents:
    """Return the latents of ``packed`` patches, of which there are ``height`` x ``width``."""
    batch, _, channels = patches.shape
    parts = patches.reshape(batch, height, width, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(batch, channels // 4, height * 2, width * 2)


def _is_of_videos(vae: Any) -> bool:
    """Whether a VAE takes and gives frames, as those of some image models do."""
    return any(isinstance(module, torch.nn.Conv3d) for module in vae.modules())


def _statistics(vae: Any, like: Latents) -> tuple[Tensor | float, Tensor | float]:
    """What is subtracted from the VAE's latents, and the factor afterwards: numbers, or one per channel."""
    config = vae.config
    scale = float(config.get("scaling_factor") or 1.0)
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return config.get("shift_factor") or 0.0, scale
    shift, spread = (torch.tensor(values).to(like).view(1, -1, 1, 1) for values in (mean, deviation))
    return shift, scale / spread


@contextmanager
def _upcast(vae: Any) -> Iterator[Any]:
    """The VAE in fp32 inside the context, if it overflows in fp16 (SDXL)."""
    if not (vae.dtype == torch.float16 and vae.config.get("force_upcast")):
        yield vae
        return
    vae.to(torch.float32)
    try:
        yield vae
    finally:
        vae.to(torch.float16)
