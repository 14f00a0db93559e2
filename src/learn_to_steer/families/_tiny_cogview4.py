"""The tiny pipeline of CogView4, whose texts are filled up on the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import PAD, START, TinyModel, byte_tokenizer, decoder_encoder, enlarged, small_vae


def _components() -> dict[str, Any]:
    from diffusers import CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler

    return {
        "tokenizer": byte_tokenizer(f"{START} $A", 1024, pad=PAD, side="left"),
        "text_encoder": decoder_encoder("Glm"),
        "transformer": enlarged(
            CogView4Transformer2DModel(
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                text_embed_dim=32,
                time_embed_dim=16,
                condition_dim=8,
                sample_size=8,
            )
        ),
        "vae": small_vae(16),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
        ),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, _ = pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False, device="cpu", **arguments)
    return {"prompt_embeds": text}


TINY = TinyModel(
    "CogView4Pipeline",
    _components,
    arguments={"max_sequence_length": 64},
    embeddings=_embeddings,
    longest=64,
    reads_padding=True,
)
