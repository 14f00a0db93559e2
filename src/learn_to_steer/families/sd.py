"""Stable Diffusion 1.x and 2.x: a UNet with text cross-attention, and variance-preserving noise.

The maps of every cross-attention (``attn2``) are captured. The map channels are sorted by resolution, lowest first;
within one resolution by down, mid and up blocks, in the order in which they run; within a layer by head. That gives 128
channels for SD1.4 and 195 for SD2.1-base.

Source: the channel order is that of the paper's authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import _vae
from learn_to_steer.families.base import Call, Images
from learn_to_steer.families.defaults import VariancePreserving, require_latents_alone
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import HookPoint, MapLayer
from learn_to_steer.prompts import token_indices

VARIANTS = (
    Variant(
        name="sd:1.4",
        family="sd",
        source="CompVis/stable-diffusion-v1-4",
        resolution=512,
        steps=50,
        guidance=7.5,
        step_size=7.5,
        trained_steps=(5, 10, 15, 20, 25, 49),
        # The model's own scheduler, PNDM, computes each step from earlier latents and would lose the update.
        scheduler={"class": "DDIMScheduler"},
        architecture={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    ),
    Variant(
        name="sd:2.1",
        family="sd",
        source="stabilityai/stable-diffusion-2-1-base",
        resolution=512,
        steps=50,
        guidance=7.5,
        step_size=5.0,
        trained_steps=(5, 10, 15, 20, 25, 49),
        scheduler={"class": "DDIMScheduler"},
        architecture={
            "sample_size": 64,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        note="its publisher withdrew the repository: name a local folder or a mirror",
    ),
)
# The positional parameters of the UNet.
_ARGUMENTS = ("sample", "timestep", "encoder_hidden_states")
_BLOCK_ORDER = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


class StableDiffusion(VariancePreserving):
    """The facts of SD1.x and SD2.x pipelines, whether they predict the noise, the velocity or the clean latents."""

    name = "sd"
    denoiser = "unet"
    network = "UNet2DConditionModel"
    dtype = "float32"
    inpainting = "StableDiffusionInpaintPipeline"  # takes the weights of text-to-image models, too
    pipelines: tuple[str, ...] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionPAGPipeline",  # while its guidance is off
    )

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        # Kolors, SDXL, DeepFloyd IF and Kandinsky have the same kind of UNet, with more inputs or another text.
        return config.get("addition_embed_type") is None and _reads_clip(config)

    def check(self, pipe: Any) -> None:
        instead = f"{self.pipelines[0]} or, to inpaint, {self.inpainting}"
        require_latents_alone(pipe.unet, "a model for inpainting, depth or upscaling", instead)

    def default_variant(self, pipe: Any, model: str) -> Variant:
        config = pipe.unet.config
        width = config.cross_attention_dim
        step_sizes = (known.step_size for known in VARIANTS if known.architecture.get("cross_attention_dim") == width)
        size = config.sample_size or 64  # None: made for any size; a pair: for images that are not square
        return Variant(
            name=model,
            family=self.name,
            source=model,
            resolution=(size if isinstance(size, int) else min(size)) * self.pixel_multiple(pipe),
            steps=50,
            guidance=7.5,
            step_size=next(step_sizes, 5.0),
        )

    def pixel_multiple(self, pipe: Any) -> int:
        return int(pipe.vae_scale_factor)

    def attention_layers(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        deepest = len(denoiser.down_blocks) - 1  # type: ignore[arg-type]
        points = []
        for name, module in denoiser.named_modules():
            if not name.endswith(".attn2"):
                continue
            blocks = name.split(".", 1)[0]
            index = int(re.match(r"\w+?\.(\d+)", name)[1]) if blocks != "mid_block" else 0  # type: ignore[index]
            level = {"down_blocks": index, "mid_block": deepest, "up_blocks": deepest - index}[blocks]
            self_attention = denoiser.get_submodule(name.removesuffix("2") + "1")
            layer = MapLayer(name, int(module.heads), level)
            point = HookPoint(layer, module, self_attention=self_attention)
            points.append((-level, _BLOCK_ORDER[blocks], point))
        return tuple(point for _, _, point in sorted(points, key=lambda entry: entry[:2]))

    def running_order(self, layers: Sequence[MapLayer]) -> tuple[MapLayer, ...]:
        def place(layer: MapLayer) -> tuple[int, list[int]]:
            return _BLOCK_ORDER[layer.name.split(".", 1)[0]], [
                int(number) for number in re.findall(r"\.(\d+)", layer.name)
            ]

        return tuple(sorted(layers, key=place))

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        return tuple(module for name, module in denoiser.named_modules() if name.endswith((".attn1", ".attn2")))

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        return token_indices(self.tokenizer(pipe), prompt, spans)

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        rest = dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs)
        latents, time = rest.pop("sample"), rest.pop("timestep")
        predicted = int(denoiser.config.out_channels)  # type: ignore[union-attr, arg-type]
        if latents.shape[1] != predicted:
            raise UnsupportedError(
                f"the UNet is fed {latents.shape[1]} channels but predicts {predicted} (an inpainting model): "
                "such latents cannot be steered; use a text-to-image pipeline"
            )
        return Call(latents, torch.as_tensor(time, device=latents.device), rest)

    def write(self, call: Call) -> dict[str, Any]:
        return {"sample": call.latents, "timestep": call.time, **call.rest}

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        return call.latents.shape[-2], call.latents.shape[-1]

    def encode(self, pipe: Any, images: Images) -> Tensor:
        return _vae.encode(pipe, images)

    def decode(self, pipe: Any, call: Call) -> Images:
        return _vae.decode(pipe.vae, call.latents)

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {"guidance_scale": 1.0}

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        scale = pipe.vae_scale_factor
        channels = pipe.unet.config.in_channels
        return torch.zeros(
            batch, channels, height // scale, width // scale, device=pipe._execution_device, dtype=pipe.unet.dtype
        )


def _reads_clip(config: Mapping[str, Any]) -> bool:
    """Whether a UNet attends to the states of CLIP as they are; an IP-Adapter adds its own."""
    return config.get("encoder_hid_dim_type") in (None, "ip_image_proj") and config.get("class_embed_type") is None


FAMILY = StableDiffusion()
