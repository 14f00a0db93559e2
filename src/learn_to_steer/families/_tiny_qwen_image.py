"""The tiny pipeline of Qwen-Image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import PAD, TinyModel, byte_tokenizer, enlarged


def _text_encoder() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": 420,
                "hidden_size": 24,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 2048,
                "bos_token_id": 0,
                "eos_token_id": 1,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 24,
                "fullatt_block_indexes": [0],
            },
            image_token_id=2,
            video_token_id=2,
            vision_start_token_id=2,
            vision_end_token_id=2,
        )
    )


def _components() -> dict[str, Any]:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.5, -0.5, 0.2, 0.0],
        latents_std=[2.0, 1.5, 1.0, 0.5],
    )
    return {
        "tokenizer": byte_tokenizer("$A", 2048, pad=PAD),
        "text_encoder": _text_encoder(),
        "transformer": enlarged(transformer),
        "vae": vae,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, mask = pipe.encode_prompt(list(prompts), device="cpu", **arguments)
    return {"prompt_embeds": text, "prompt_embeds_mask": mask}


TINY = TinyModel(
    "QwenImagePipeline",
    _components,
    arguments={"max_sequence_length": 200},
    plain={"true_cfg_scale": 1.0},
    guided={"true_cfg_scale": 4.0},
    embeddings=_embeddings,
    longest=200,
)
