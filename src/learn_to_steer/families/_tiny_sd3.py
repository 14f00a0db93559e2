"""The tiny pipeline of Stable Diffusion 3.5, with all three text encoders."""

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
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    return {
        "tokenizer": byte_tokenizer(),
        "tokenizer_2": byte_tokenizer(),
        "tokenizer_3": byte_tokenizer(f"$A {END}", 512, pad=PAD),
        "text_encoder": clip_encoder(16, projected=16),
        "text_encoder_2": clip_encoder(24, projected=24),
        "text_encoder_3": t5_encoder(64),
        "transformer": enlarged(
            SD3Transformer2DModel(
                sample_size=8,
                in_channels=16,
                out_channels=16,
                num_layers=3,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=64,
                caption_projection_dim=16,
                pooled_projection_dim=40,
                pos_embed_max_size=16,
                dual_attention_layers=(0,),
                qk_norm="rms_norm",
            )
        ),
        "vae": small_vae(16, scaling_factor=1.5305, shift_factor=0.0609),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, _, pooled, _ = pipe.encode_prompt(
        list(prompts), None, None, device="cpu", do_classifier_free_guidance=False, **arguments
    )
    return {"prompt_embeds": text, "pooled_prompt_embeds": pooled}


TINY = TinyModel(
    "StableDiffusion3Pipeline",
    _components,
    arguments={"max_sequence_length": 64},
    embeddings=_embeddings,
)
