"""The tiny pipeline of Lumina-Image 2.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import PAD, START, TinyModel, byte_tokenizer, decoder_encoder, enlarged, small_vae


def _components() -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Transformer2DModel

    return {
        "tokenizer": byte_tokenizer(f"{START} $A", 512, pad=PAD),
        "text_encoder": decoder_encoder("Gemma2"),
        "transformer": enlarged(
            Lumina2Transformer2DModel(
                sample_size=8,
                hidden_size=32,
                num_layers=2,
                num_refiner_layers=1,
                num_attention_heads=4,
                num_kv_heads=2,
                multiple_of=16,
                axes_dim_rope=(4, 2, 2),
                axes_lens=(300, 64, 64),
                cap_feat_dim=32,
            ),
            "norm_out.linear_2",
        ),
        "vae": small_vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=6.0),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, mask, _, _ = pipe.encode_prompt(list(prompts), False, device="cpu", **arguments)
    return {"prompt_embeds": text, "prompt_attention_mask": mask}


TINY = TinyModel(
    "Lumina2Pipeline",
    _components,
    arguments={"max_sequence_length": 144},
    embeddings=_embeddings,
    longest=144,
)
