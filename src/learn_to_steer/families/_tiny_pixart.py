"""The tiny pipeline of PixArt-Sigma, which predicts a variance beside the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import END, PAD, TinyModel, byte_tokenizer, enlarged, small_vae, t5_encoder


def _components() -> dict[str, Any]:
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    return {
        "tokenizer": byte_tokenizer(f"$A {END}", 512, pad=PAD),
        "text_encoder": t5_encoder(24),
        "transformer": enlarged(
            PixArtTransformer2DModel(
                sample_size=32,
                num_layers=3,
                attention_head_dim=8,
                num_attention_heads=2,
                cross_attention_dim=16,
                caption_channels=24,
                norm_num_groups=4,
                use_additional_conditions=False,
            )
        ),
        "vae": small_vae(4, scaling_factor=0.13025),
        "scheduler": DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, mask, _, _ = pipe.encode_prompt(
        list(prompts), False, device="cpu", max_sequence_length=arguments["max_sequence_length"]
    )
    return {"prompt_embeds": text, "prompt_attention_mask": mask}


TINY = TinyModel(
    "PixArtSigmaPipeline",
    _components,
    arguments={"max_sequence_length": 64, "use_resolution_binning": False},
    embeddings=_embeddings,
    longest=64,
)
