"""The tiny pipeline of Z-Image: a causal text encoder, and a transformer whose first layers see image or text alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import PAD, TinyModel, byte_tokenizer, enlarged, small_vae

_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _components() -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    encoder = Qwen3Config(
        vocab_size=420,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        max_position_embeddings=256,
    )
    return {
        "tokenizer": byte_tokenizer("$A", 256, pad=PAD, chat=_CHAT),
        "text_encoder": Qwen3Model(encoder),
        "transformer": enlarged(
            ZImageTransformer2DModel(
                dim=48,
                n_layers=3,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=24,
                axes_dims=[8, 8, 8],
                axes_lens=[256, 64, 64],
            ),
            "all_final_layer.2-1.linear",
        ),
        "vae": small_vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, _ = pipe.encode_prompt(list(prompts), device="cpu", do_classifier_free_guidance=False, **arguments)
    return {"prompt_embeds": text}


TINY = TinyModel(
    "ZImagePipeline",
    _components,
    arguments={"max_sequence_length": 80},
    plain={"guidance_scale": 0.0},
    embeddings=_embeddings,
    text_arguments=("cap_feats",),
    longest=80,
)
