"""The tiny pipeline of Chroma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import END, PAD, TinyModel, byte_tokenizer, enlarged, small_vae, t5_encoder


def _components() -> dict[str, Any]:
    from diffusers import ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    return {
        "tokenizer": byte_tokenizer(f"$A {END}", 512, pad=PAD),
        "text_encoder": t5_encoder(24),
        "transformer": enlarged(
            ChromaTransformer2DModel(
                in_channels=64,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                axes_dims_rope=(4, 6, 6),
                approximator_num_channels=16,
                approximator_hidden_dim=32,
                approximator_layers=1,
            )
        ),
        "vae": small_vae(16, scaling_factor=0.7, shift_factor=0.1),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, _, mask, *_ = pipe.encode_prompt(list(prompts), device="cpu", do_classifier_free_guidance=False, **arguments)
    return {"prompt_embeds": text, "prompt_attention_mask": mask}


TINY = TinyModel(
    "ChromaPipeline",
    _components,
    arguments={"max_sequence_length": 48},
    embeddings=_embeddings,
    longest=48,
)
