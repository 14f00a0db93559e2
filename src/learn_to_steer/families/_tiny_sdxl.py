"""The tiny pipeline of Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import TinyModel, byte_tokenizer, clip_encoder, small_vae


def _components() -> dict[str, Any]:
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

    return {
        "tokenizer": byte_tokenizer(),
        "tokenizer_2": byte_tokenizer(),
        "text_encoder": clip_encoder(16),
        "text_encoder_2": clip_encoder(24, projected=8),
        "unet": UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=40,
            attention_head_dim=(2, 4),
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=56,
        ),
        "vae": small_vae(4, scaling_factor=0.13025, force_upcast=True),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        "force_zeros_for_empty_prompt": True,
        "add_watermarker": False,
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, _, pooled, _ = pipe.encode_prompt(list(prompts), device="cpu", do_classifier_free_guidance=False)
    return {"prompt_embeds": text, "pooled_prompt_embeds": pooled}


TINY = TinyModel("StableDiffusionXLPipeline", _components, embeddings=_embeddings, low_precision="float16")
