"""Stable Diffusion 3 and 3.5: a transformer with joint attention of text and image, rectified flow.

The maps of every block are captured. Among the attention keys the text comes after the image: 77 columns of two CLIP
encoders side by side, then the columns of T5. A word has columns in both, as far as either reads: CLIP stops at 77
tokens. Without T5, its columns are there but hold nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.families.defaults import (
    FEW_STEP_LEVELS,
    FIRST_STEP_BY_INDEX,
    RectifiedFlow,
    Transformer,
    require_latents_alone,
    require_same_prompt,
)
from learn_to_steer.families.variant import Variant
from learn_to_steer.prompts import token_indices

_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
_LARGE = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
_USUAL = Variant(
    name="sd3:medium",
    family="sd3",
    source="stabilityai/stable-diffusion-3-medium-diffusers",
    resolution=1024,
    steps=28,
    guidance=7.0,
    step_size=5.0,
    dtype="float16",
    architecture=_MEDIUM | {"pos_embed_max_size": 192},
)
_LARGE_35 = replace(
    _USUAL,
    name="sd3.5:large",
    source="stabilityai/stable-diffusion-3.5-large",
    guidance=3.5,
    dtype="bfloat16",
    architecture=_LARGE,
)
VARIANTS = (
    _USUAL,
    replace(
        _USUAL,
        name="sd3.5:medium",
        source="stabilityai/stable-diffusion-3.5-medium",
        steps=40,
        guidance=4.5,
        dtype="bfloat16",
        architecture=_MEDIUM
        | {"pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"},
    ),
    _LARGE_35,
    replace(
        _LARGE_35,
        name="sd3.5:large-turbo",
        source="stabilityai/stable-diffusion-3.5-large-turbo",
        steps=4,
        guidance=0.0,
        levels=FEW_STEP_LEVELS,
        steering=FIRST_STEP_BY_INDEX,
    ),
)


class StableDiffusion3(RectifiedFlow, Transformer):
    """The facts of SD3 and SD3.5 pipelines."""

    name = "sd3"
    network = "SD3Transformer2DModel"
    pipelines = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
        "StableDiffusion3ControlNetPipeline",
    )
    modular_pipelines = ("StableDiffusion3ModularPipeline",)
    text_place = "last"
    parameters = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")
    longest_text = 256
    full_time = 1000.0

    def check(self, pipe: Any) -> None:
        instead = "StableDiffusion3Pipeline or, to inpaint, StableDiffusion3InpaintPipeline"
        require_latents_alone(pipe.transformer, "a model for inpainting or control", instead)

    def default_variant(self, pipe: Any, model: str) -> Variant:
        side = int(pipe.transformer.config.sample_size * pipe.vae_scale_factor)
        known = next((one for one in VARIANTS if _has(pipe.transformer.config, one.architecture)), _USUAL)
        return replace(known, name=model, source=model, resolution=side, dtype=self.dtype, architecture={})

    def attention(self, denoiser: Any) -> tuple[Any, ...]:
        return tuple(module for name, module in denoiser.named_modules() if name.endswith((".attn", ".attn2")))

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        for name in ("prompt_2", "prompt_3"):
            require_same_prompt(name, prompts, arguments, "a word of one encoder would be another word of the other")
        return list(prompts)

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        window, longest = int(pipe.tokenizer_max_length), self.longest(arguments)
        encoders: list[tuple[Any, int | None, int]] = [(pipe.tokenizer, window, 0)]
        if pipe.text_encoder_3 is not None:
            encoders.append((pipe.tokenizer_3, longest, window))
        found: list[tuple[int, ...]] = []
        for span in spans:
            columns: tuple[int, ...] = ()
            beyond: PromptError | None = None
            for tokenizer, limit, start in encoders:
                try:
                    (group,) = token_indices(tokenizer, prompt, [span], max_length=limit)
                    columns += tuple(start + column for column in group)
                except PromptError as error:
                    beyond = error
            if beyond is not None and not columns:
                raise beyond
            found.append(columns)
        return found


def _has(config: Mapping[str, Any], architecture: Mapping[str, Any]) -> bool:
    """Whether a transformer's config is that of a variant."""

    def plain(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value  # JSON has no tuples

    return all(plain(config.get(name)) == value for name, value in architecture.items())


FAMILY = StableDiffusion3()
