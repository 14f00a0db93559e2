"""The tiny pipeline of FLUX.1, with guidance as an input, as in FLUX.1 dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import (
    END,
    PAD,
    TinyModel,
    byte_tokenizer,
    clip_encoder,
    enlarged,
    small_vae,
    t5_encoder,
)


def _components() -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    return {
        "tokenizer": byte_tokenizer(),
        "tokenizer_2": byte_tokenizer(f"$A {END}", 512, pad=PAD),
        "text_encoder": clip_encoder(16, layers=1),
        "text_encoder_2": t5_encoder(24),
        "transformer": enlarged(
            FluxTransformer2DModel(
                in_channels=64,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                pooled_projection_dim=16,
                guidance_embeds=True,
                axes_dims_rope=(4, 6, 6),
            )
        ),
        "vae": small_vae(16, scaling_factor=0.7, shift_factor=0.1),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, pooled, _ = pipe.encode_prompt(list(prompts), None, device="cpu", **arguments)
    return {"prompt_embeds": text, "pooled_prompt_embeds": pooled}


TINY = TinyModel(
    "FluxPipeline",
    _components,
    arguments={"max_sequence_length": 48},
    plain={"guidance_scale": 3.5},
    guided={"guidance_scale": 3.5, "true_cfg_scale": 3.0},
    embeddings=_embeddings,
    longest=48,
)
