"""FLUX: a transformer with joint attention, rectified flow, packed latents.

Every block is tapped, double blocks first, then single ones; inside a block by head (the authors' order: 57 blocks of
24 heads, 1368 channels). Text stands before the picture in the keys; *source:* official_implementation, 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import _vae
from learn_to_steer.families.base import Call, Variant
from learn_to_steer.maps import HookPoint, Layout, MapLayer
from learn_to_steer.prompts import token_indices

_LONGEST = 512  # columns, unless a call says otherwise
FEW_STEP_LEVELS = (0.8, 0.65, 0.5)  # noise levels of the maps that a classifier for a few-step model learns from
FIRST_STEP = {"window": 0.2}  # of four steps the first alone: the initial noise
VARIANTS = (
    Variant(
        "flux:schnell",
        "flux",
        "black-forest-labs/FLUX.1-schnell",
        256,
        4,
        0.0,
        step_size=5.0,
        trained_steps=(1, 3),
        levels=FEW_STEP_LEVELS,
        dtype="bfloat16",
        steering=FIRST_STEP,
    ),
    Variant(
        "flux:dev",
        "flux",
        "black-forest-labs/FLUX.1-dev",
        512,
        50,
        3.5,
        step_size=5.0,
        trained_steps=(5, 10, 15, 20, 25, 49),
        dtype="bfloat16",
        architecture={"guidance_embeds": True},
    ),
)
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
_SHARED = ("img_ids", "txt_ids")


class Flux:
    """The facts of FLUX.1 pipelines. Latents are packed: (batch, places, 4 x VAE channels)."""

    name = "flux"
    denoiser = "transformer"
    network = "FluxTransformer2DModel"
    dtype = "bfloat16"
    schedulers = ("FlowMatchEulerDiscreteScheduler",)
    pipelines = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetPipeline")

    def matches(self, pipe: Any) -> bool:
        return type(getattr(pipe, "transformer", None)).__name__ == self.network

    def default_variant(self, pipe: Any, model: str) -> Variant:
        side = int(pipe.default_sample_size * pipe.vae_scale_factor)
        if pipe.transformer.config.guidance_embeds:
            return Variant(model, self.name, model, side, 50, 3.5, step_size=5.0)
        # Without an embedded guidance it is a few-step model like schnell.
        return Variant(
            model, self.name, model, side, 4, 0.0, step_size=5.0, levels=FEW_STEP_LEVELS, steering=FIRST_STEP
        )

    def pixel_multiple(self, pipe: Any) -> int:
        return 2 * int(pipe.vae_scale_factor)

    def attention_layers(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        found = []
        for place in ("transformer_blocks", "single_transformer_blocks"):
            for index, block in enumerate(getattr(denoiser, place)):
                layer = MapLayer(f"{place}.{index}.attn", int(block.attn.heads), 0)
                found.append(HookPoint(layer, block.attn, "first"))
        return tuple(found)

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        return tuple(point.module for point in self.attention_layers(denoiser))

    def layout(self, denoiser: nn.Module, side: int = 16) -> Layout:
        return Layout(self.name, tuple(point.layer for point in self.attention_layers(denoiser)), side)

    def tokenizer(self, pipe: Any) -> Any:
        return pipe.tokenizer_2

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        read = int(arguments.get("max_sequence_length") or _LONGEST)
        return token_indices(pipe.tokenizer_2, prompt, spans, max_length=read)

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        second = arguments.get("prompt_2")
        if second is None:
            return list(prompts)
        return [second] if isinstance(second, str) else list(second)

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        given = dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs)
        latents, time = given.pop("hidden_states"), given.pop("timestep")
        shared = {name: given.pop(name) for name in _SHARED}
        call = Call(latents, torch.as_tensor(time, device=latents.device), given, shared)
        places = shared["img_ids"].reshape(-1, 3)
        # The attribute and not the config, in which a Control LoRA widens the input alone.
        if latents.shape[-1] != denoiser.out_channels:
            raise UnsupportedError(
                f"the transformer is fed {latents.shape[-1]} channels but predicts fewer (Fill, Control): such latents "
                "cannot be steered; use a text-to-image pipeline"
            )
        height, width = self.latent_size(call)
        if height * width != latents.shape[1] or bool((places[:, 0] != places[0, 0]).any()):
            raise UnsupportedError(
                f"the transformer is fed {latents.shape[1]} places for a picture of {height} x {width} (Kontext "
                "appends another): such latents cannot be steered; use a text-to-image pipeline"
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
        ids = call.shared["img_ids"].reshape(-1, 3)  # older versions gave them a batch axis
        return int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        return float(time.flatten()[0])

    def progress(self, pipe: Any, time: Tensor) -> float:
        return 1 - float(time.flatten()[0])

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        return levels

    def add_noise(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        share = _column(time, clean)
        return (1 - share) * clean + share * noise

    def predict_clean(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        return latents - _column(time, latents) * prediction

    def encode(self, pipe: Any, pictures: Tensor) -> Tensor:
        latents = _vae.encode(pipe, pictures)
        batch, channels, height, width = latents.shape
        cells = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
        return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)

    def decode(self, pipe: Any, call: Call) -> Tensor:
        height, width = self.latent_size(call)
        batch, _, packed = call.latents.shape
        cells = call.latents.reshape(batch, height, width, packed // 4, 2, 2)
        return _vae.decode(pipe.vae, cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, packed // 4, height * 2, width * 2))

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {}  # one row a prompt already; guidance is an input and keeps the pipeline's default

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        cell, transformer = self.pixel_multiple(pipe), pipe.transformer
        size = (batch, (height // cell) * (width // cell), transformer.config.in_channels)
        return torch.zeros(size, device=pipe._execution_device, dtype=transformer.dtype)


def _column(time: Tensor, like: Tensor) -> Tensor:
    return time.to(like).reshape(-1, *[1] * (like.ndim - 1))


FAMILY = Flux()
