"""The tiny pipeline of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import TinyModel, byte_tokenizer, clip_encoder, small_vae


def _components() -> dict[str, Any]:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    return {
        "tokenizer": byte_tokenizer(),
        "text_encoder": clip_encoder(16, layers=1),
        "unet": UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        "vae": small_vae(4),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt_embeds": pipe.encode_prompt(list(prompts), "cpu", 1, False)[0]}


TINY = TinyModel("StableDiffusionPipeline", _components, embeddings=_embeddings)
