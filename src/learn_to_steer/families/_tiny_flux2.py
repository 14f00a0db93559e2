"""The tiny pipeline of FLUX.2 dev, and that of a klein base model.

The pipelines read hidden layers up to the 30th, so the text encoders have as many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import END, PAD, START, TinyModel, byte_tokenizer, enlarged, small_vae

_WIDTH, _LAYERS = 16, 31
_SIZES = {
    "vocab_size": 420,
    "hidden_size": _WIDTH,
    "intermediate_size": 16,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
_DEV_CHAT = (
    START + "{% for message in messages %}{% for part in message['content'] %}<|im_start|>{{ part['text'] }}<|im_end|>"
    "{% endfor %}{% endfor %}"
)
_KLEIN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)


def _mistral() -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    config = Mistral3Config(
        text_config={"model_type": "mistral", **_SIZES},
        vision_config={"model_type": "pixtral", "image_size": 16, "patch_size": 8, **vision},
        image_token_index=3,
    )
    return Mistral3ForConditionalGeneration(config)


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_SIZES))


def _shared(guidance: bool) -> dict[str, Any]:
    """The transformer, the VAE and the scheduler."""
    import torch
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=32,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * _WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )
    vae = small_vae(8, kind=AutoencoderKLFlux2)
    torch.nn.init.normal_(vae.bn.running_mean)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {"transformer": enlarged(transformer), "vae": vae, "scheduler": scheduler}


def _dev() -> dict[str, Any]:
    # Mistral's tokenizer fills short texts up on the left.
    tokenizer = byte_tokenizer(f"{START} $A", 1024, pad=PAD, side="left", chat=_DEV_CHAT)
    return {"tokenizer": tokenizer, "text_encoder": _mistral(), **_shared(guidance=True)}


def _klein() -> dict[str, Any]:
    tokenizer = byte_tokenizer("$A", 1024, pad=END, chat=_KLEIN_CHAT)
    return {"tokenizer": tokenizer, "text_encoder": _qwen3(), **_shared(guidance=False)}


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, _ = pipe.encode_prompt(list(prompts), device="cpu", **arguments)
    return {"prompt_embeds": text}


TINY = TinyModel(
    "Flux2Pipeline",
    _dev,
    arguments={"max_sequence_length": 224},
    plain={"guidance_scale": 4.0},
    guided=None,
    embeddings=_embeddings,
    longest=224,
)
TINY_OTHERS = {
    "klein": TinyModel(
        "Flux2KleinPipeline",
        _klein,
        arguments={"max_sequence_length": 96},
        guided=None,  # it is, but takes no negative prompt
        embeddings=_embeddings,
        longest=96,
    )
}
