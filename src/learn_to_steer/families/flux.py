"""FLUX.1: a transformer with joint attention of text and image, rectified flow, and packed latents.

The maps of every block are captured: double-stream blocks first, then single-stream blocks, and within a block by head.
FLUX.1 has 57 blocks of 24 heads, which gives 1368 channels. Among the attention keys the text comes before the image.

Source: the channel order is that of the paper's authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import _vae
from learn_to_steer.families.base import Call, Images, Variant
from learn_to_steer.maps import HookPoint, Layout, MapLayer
from learn_to_steer.prompts import token_indices

_DEFAULT_MAX_LENGTH = 512  # text tokens, unless the call gives ``max_sequence_length``
# Noise levels at which maps are collected for a few-step model (see ``Variant.levels``).
FEW_STEP_LEVELS = (0.8, 0.65, 0.5)
# Steering settings for four steps: only the first one is steered, that is, the initial noise.
FIRST_STEP = {"window": 0.2}
VARIANTS = (
    Variant(
        name="flux:schnell",
        family="flux",
        source="black-forest-labs/FLUX.1-schnell",
        resolution=256,
        steps=4,
        guidance=0.0,
        step_size=5.0,
        trained_steps=(1, 3),
        levels=FEW_STEP_LEVELS,
        dtype="bfloat16",
        steering=FIRST_STEP,
    ),
    Variant(
        name="flux:dev",
        family="flux",
        source="black-forest-labs/FLUX.1-dev",
        resolution=512,
        steps=50,
        guidance=3.5,
        step_size=5.0,
        trained_steps=(5, 10, 15, 20, 25, 49),
        dtype="bfloat16",
        architecture={"guidance_embeds": True},
    ),
)
# The positional parameters of the transformer.
_ARGUMENTS = (
    "hidden_states",
    "encoder_hidden_states",
    "pooled_projections",
    "timestep",
    "img_ids",
    "txt_ids",
    "guidance",
    "joint_attention_kwargs",
)
_SHARED = ("img_ids", "txt_ids")  # of these, the ones without a batch axis


class Flux:
    """The facts of FLUX.1 pipelines.

    Latents are packed: 2 x 2 positions of the VAE's latents become one position with four times the channels, and the
    denoiser is fed a sequence of shape (batch, positions, 4 * VAE channels).
    """

    name = "flux"
    denoiser = "transformer"
    network = "FluxTransformer2DModel"
    dtype = "bfloat16"
    schedulers = ("FlowMatchEulerDiscreteScheduler",)
    pipelines = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetPipeline")

    def matches(self, pipe: Any) -> bool:
        return type(getattr(pipe, "transformer", None)).__name__ == self.network

    def default_variant(self, pipe: Any, model: str) -> Variant:
        usual = Variant(
            name=model,
            family=self.name,
            source=model,
            resolution=int(pipe.default_sample_size * pipe.vae_scale_factor),
            steps=50,
            guidance=3.5,
            step_size=5.0,
        )
        if pipe.transformer.config.guidance_embeds:
            return usual
        # A transformer without guidance as an input is a few-step model, like schnell.
        return replace(usual, steps=4, guidance=0.0, levels=FEW_STEP_LEVELS, steering=FIRST_STEP)

    def pixel_multiple(self, pipe: Any) -> int:
        return 2 * int(pipe.vae_scale_factor)

    def attention_layers(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        points = []
        for blocks in ("transformer_blocks", "single_transformer_blocks"):
            for index, block in enumerate(getattr(denoiser, blocks)):
                layer = MapLayer(f"{blocks}.{index}.attn", int(block.attn.heads), 0)
                points.append(HookPoint(layer, block.attn, "first"))
        return tuple(points)

    def running_order(self, layers: Sequence[MapLayer]) -> tuple[MapLayer, ...]:
        def place(layer: MapLayer) -> tuple[bool, int]:
            return layer.name.startswith("single"), int(layer.name.split(".")[1])

        return tuple(sorted(layers, key=place))

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        return tuple(point.module for point in self.attention_layers(denoiser))

    def layout(self, denoiser: nn.Module, side: int = 16) -> Layout:
        return Layout(self.name, tuple(point.layer for point in self.attention_layers(denoiser)), side)

    def tokenizer(self, pipe: Any) -> Any:
        return pipe.tokenizer_2

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        max_length = int(arguments.get("max_sequence_length") or _DEFAULT_MAX_LENGTH)
        return token_indices(pipe.tokenizer_2, prompt, spans, max_length=max_length)

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        second = arguments.get("prompt_2")
        if not second:  # the pipeline takes "" for None, too
            return list(prompts)
        return [second] if isinstance(second, str) else list(second)

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        rest = dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs)
        latents, time = rest.pop("hidden_states"), rest.pop("timestep")
        shared = {name: rest.pop(name) for name in _SHARED}
        call = Call(latents, torch.as_tensor(time, device=latents.device), rest, shared)
        positions = shared["img_ids"].reshape(-1, 3)  # image number, row, column
        # Not read from the config: there None stands for in_channels, which a Control LoRA enlarges.
        if latents.shape[-1] != denoiser.out_channels:
            raise UnsupportedError(
                f"the transformer is fed {latents.shape[-1]} channels but predicts fewer (Fill, Control): such latents "
                "cannot be steered; use a text-to-image pipeline"
            )
        height, width = self.latent_size(call)
        if height * width != latents.shape[1] or bool((positions[:, 0] != positions[0, 0]).any()):
            raise UnsupportedError(
                f"the transformer is fed {latents.shape[1]} positions for an image of {height} x {width} (Kontext "
                "appends a second image): such latents cannot be steered; use a text-to-image pipeline"
            )
        return call

    def write(self, call: Call) -> dict[str, Any]:
        time = call.time.to(call.latents).expand(call.latents.shape[0])
        return {"hidden_states": call.latents, "timestep": time, **call.rest, **call.shared}

    def model_timestep(self, timestep: Tensor) -> Tensor:
        return timestep / 1000

    def text_length(self, call: Call) -> int:
        return int(call.rest["encoder_hidden_states"].shape[1])

    def latent_size(self, call: Call) -> tuple[int, int]:
        ids = call.shared["img_ids"].reshape(-1, 3)  # older versions of diffusers give them a batch axis
        return int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        return float(time.flatten()[0])

    def progress(self, pipe: Any, time: Tensor) -> float:
        return 1 - float(time.flatten()[0])

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        return levels

    def add_noise(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        sigma = _broadcast(time, clean)
        return (1 - sigma) * clean + sigma * noise

    def predict_clean(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        return latents - _broadcast(time, latents) * prediction

    def encode(self, pipe: Any, images: Images) -> Tensor:
        latents = _vae.encode(pipe, images)
        batch, channels, height, width = latents.shape
        patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)

    def decode(self, pipe: Any, call: Call) -> Images:
        height, width = self.latent_size(call)
        batch, _, channels = call.latents.shape
        patches = call.latents.reshape(batch, height, width, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return _vae.decode(pipe.vae, patches.reshape(batch, channels // 4, height * 2, width * 2))

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {}  # FLUX makes no second, unconditional batch: guidance is an input of the transformer

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        multiple, transformer = self.pixel_multiple(pipe), pipe.transformer
        shape = (batch, (height // multiple) * (width // multiple), transformer.config.in_channels)
        return torch.zeros(shape, device=pipe._execution_device, dtype=transformer.dtype)


def _broadcast(time: Tensor, like: Tensor) -> Tensor:
    """``time``, a scalar or one value per row, with as many axes as ``like``."""
    return time.to(like).reshape(-1, *[1] * (like.ndim - 1))


FAMILY = Flux()
