"""The tiny pipeline of AuraFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import END, PAD, TinyModel, byte_tokenizer, enlarged, small_vae


def _components() -> dict[str, Any]:
    from diffusers import AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import UMT5Config, UMT5EncoderModel

    text = UMT5Config(vocab_size=420, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return {
        "tokenizer": byte_tokenizer(f"$A {END}", 512, pad=PAD),
        "text_encoder": UMT5EncoderModel(text),
        "transformer": enlarged(
            AuraFlowTransformer2DModel(
                sample_size=8,
                num_mmdit_layers=2,
                num_single_dit_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pos_embed_max_size=64,
            )
        ),
        "vae": small_vae(4, scaling_factor=0.13025, force_upcast=True),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.73),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, mask, _, _ = pipe.encode_prompt(list(prompts), device="cpu", do_classifier_free_guidance=False, **arguments)
    return {"prompt_embeds": text, "prompt_attention_mask": mask}


TINY = TinyModel(
    "AuraFlowPipeline",
    _components,
    arguments={"max_sequence_length": 48},
    embeddings=_embeddings,
    longest=48,
    low_precision="float16",
)
