"""The tiny pipeline of Sana: the language model reads an instruction before the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.families.testing import PAD, START, TinyModel, byte_tokenizer, enlarged

_INSTRUCTION = ["Describe this in more detail:", "- a dog -> a small brown dog", "User Prompt: "]


def _components() -> dict[str, Any]:
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    levels = 6  # each but one halves the image
    return {
        "tokenizer": byte_tokenizer(f"{START} $A", 8192, pad=PAD),
        "text_encoder": Gemma2Model(
            Gemma2Config(
                vocab_size=420,
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=2,
            )
        ),
        "transformer": enlarged(
            SanaTransformer2DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=4,
                attention_head_dim=4,
                num_layers=3,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=24,
                sample_size=16,
            )
        ),
        "vae": AutoencoderDC(
            latent_channels=8,
            attention_head_dim=2,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_block_out_channels=(8,) * levels,
            decoder_block_out_channels=(8,) * levels,
            encoder_layers_per_block=(1,) * levels,
            decoder_layers_per_block=(1,) * levels,
            encoder_qkv_multiscales=((),) * levels,
            decoder_qkv_multiscales=((),) * levels,
            scaling_factor=0.41407,
        ),
        "scheduler": DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def _embeddings(pipe: Any, prompts: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    text, mask, _, _ = pipe.encode_prompt(
        list(prompts),
        False,
        device="cpu",
        max_sequence_length=arguments["max_sequence_length"],
        complex_human_instruction=arguments["complex_human_instruction"],
    )
    return {"prompt_embeds": text, "prompt_attention_mask": mask}


TINY = TinyModel(
    "SanaPipeline",
    _components,
    size=(256, 256),
    other_size=(256, 384),
    arguments={
        "max_sequence_length": 64,
        "use_resolution_binning": False,
        "complex_human_instruction": _INSTRUCTION,
    },
    embeddings=_embeddings,
    longest=64,
)
