"""FLUX.2: FLUX.1's kind of transformer, for which a language model reads the prompt as a message in a conversation.

FLUX.2 dev reads it with Mistral, below a system message, and takes guidance as an input. The klein models read it with
Qwen3; the distilled ones take four steps without guidance, the base models have true guidance without negative
prompts. All 512 text columns are attended to, padding included, on whichever side of the text the tokenizer puts it.
The pipelines take ``latents=`` as images of channels, and pack them themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.base import Call, Images
from learn_to_steer.families.chat import ChatTransformer
from learn_to_steer.families.defaults import FEW_STEP_LEVELS, FIRST_STEP_BY_INDEX, Packed, RectifiedFlow
from learn_to_steer.families.variant import Variant

_DEV = Variant(
    name="flux2:dev",
    family="flux2",
    source="black-forest-labs/FLUX.2-dev",
    resolution=1024,
    steps=50,
    guidance=4.0,
    step_size=5.0,
    dtype="bfloat16",
    unconfirmed=("resolution",),
)
_KLEIN = replace(
    _DEV,
    name="flux2:klein",
    source="black-forest-labs/FLUX.2-klein-4B",
    steps=4,
    guidance=1.0,
    levels=FEW_STEP_LEVELS,
    steering=FIRST_STEP_BY_INDEX,
    architecture={
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "guidance_embeds": False,
    },
    unconfirmed=("resolution", "guidance"),
)
VARIANTS = (_DEV, _KLEIN)


class Flux2(RectifiedFlow, ChatTransformer, Packed):
    """The facts of FLUX.2 pipelines."""

    name = "flux2"
    network = "Flux2Transformer2DModel"
    blocks: Mapping[str, str] = {"transformer_blocks": "attn", "single_transformer_blocks": "attn"}
    parameters = (
        "hidden_states",
        "encoder_hidden_states",
        "timestep",
        "img_ids",
        "txt_ids",
        "guidance",
        "joint_attention_kwargs",
    )
    shared = ("img_ids", "txt_ids")
    longest_text = 512
    pipelines = ("Flux2Pipeline", "Flux2KleinPipeline")
    modular_pipelines = ("Flux2ModularPipeline", "Flux2KleinModularPipeline")

    def recommended_pipeline(self, pipe: Any) -> str:
        return "Flux2Pipeline" if _is_dev(pipe) else "Flux2KleinPipeline"

    def default_variant(self, pipe: Any, model: str) -> Variant:
        usual = _KLEIN if getattr(pipe.config, "is_distilled", False) else _DEV
        side = int(pipe.default_sample_size * pipe.vae_scale_factor)
        return replace(usual, name=model, source=model, resolution=side, architecture={})

    def tokenizer(self, pipe: Any) -> Any:
        return getattr(pipe.tokenizer, "tokenizer", pipe.tokenizer)  # Mistral's stands in a processor

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        if arguments.get("caption_upsample_temperature"):
            raise UnsupportedError(
                "caption_upsample_temperature writes another prompt, whose words are not known before the call; call "
                "pipe.upsample_prompt before, and give its result as the prompt"
            )
        if arguments.get("image") is not None:
            raise UnsupportedError(f"{_REFERENCE}; leave image out")
        return list(prompts)

    def conversation(self, pipe: Any, prompt: str) -> str:
        if not _is_dev(pipe):
            message = {"role": "user", "content": prompt}
            return _rendered(pipe, [message], add_generation_prompt=True, enable_thinking=False)
        parts = {"system": pipe.system_message, "user": prompt.replace("[IMG]", "")}
        messages = [{"role": role, "content": [{"type": "text", "text": part}]} for role, part in parts.items()]
        return _rendered(pipe, messages, add_generation_prompt=False)

    def adds_special_tokens(self, pipe: Any, conversation: str) -> bool:
        if not _is_dev(pipe):
            return True
        # A tokenizer's apply_chat_template adds none, a processor's only where the template has no start token.
        tokenizer = self.tokenizer(pipe)
        own = tokenizer.bos_token is not None and conversation.startswith(tokenizer.bos_token)
        return tokenizer is not pipe.tokenizer and not own

    def check_call(self, denoiser: nn.Module, call: Call) -> None:
        positions = _positions(call)
        height, width = self.latent_size(denoiser, call)
        if height * width != call.latents.shape[1] or bool((positions[:, 0] != positions[0, 0]).any()):
            raise UnsupportedError(f"{_REFERENCE}; use a text-to-image pipeline without reference images")

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        positions = _positions(call)
        return int(positions[:, 1].max()) + 1, int(positions[:, 2].max()) + 1

    def encode(self, pipe: Any, images: Images) -> Tensor:
        patches = super().encode(pipe, images)
        mean, deviation = _statistics(pipe.vae, patches)
        return (patches - mean) / deviation

    def decode(self, pipe: Any, call: Call) -> Images:
        mean, deviation = _statistics(pipe.vae, call.latents)
        return super().decode(pipe, replace(call, latents=call.latents * deviation + mean))

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {} if _is_dev(pipe) else {"guidance_scale": 1.0}

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        side, transformer = self.pixel_multiple(pipe), pipe.transformer
        shape = (batch, transformer.config.in_channels, height // side, width // side)
        return torch.zeros(shape, device=pipe._execution_device, dtype=transformer.dtype)


_REFERENCE = "the transformer is fed reference images besides the latents, which cannot be steered"


def _is_dev(pipe: Any) -> bool:
    return hasattr(pipe, "system_message")


def _rendered(pipe: Any, messages: list[Any], **settings: Any) -> str:
    text: str = pipe.tokenizer.apply_chat_template(messages, tokenize=False, **settings)
    return text


def _positions(call: Call) -> Tensor:
    """The image's positions, one row each: number of the image, row, column, layer."""
    ids: Tensor = call.shared["img_ids"]
    return ids[0] if ids.ndim == 3 else ids


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels of patches, which the VAE keeps in a batch norm."""
    norm = vae.bn
    return norm.running_mean.to(like), (norm.running_var + vae.config.batch_norm_eps).sqrt().to(like)


FAMILY = Flux2()
