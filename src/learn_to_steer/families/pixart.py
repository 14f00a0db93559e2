"""PixArt-Sigma and PixArt-Alpha: a transformer with text cross-attention, variance-preserving noise.

The maps of every cross-attention (``attn2``) are captured. The pipelines put a prompt into lower case, and may clean
it, before they encode it. They draw at the nearest of a few sizes, and then resize the image to the one asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from learn_to_steer.errors import PromptError
from learn_to_steer.families.base import Call
from learn_to_steer.families.defaults import Transformer, VariancePreserving
from learn_to_steer.families.variant import Variant
from learn_to_steer.prompts import token_indices

Span = tuple[int, int]
_USUAL = Variant(
    name="pixart:sigma",
    family="pixart",
    source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    resolution=1024,
    # The card's example calls the pipeline without either: these are its defaults.
    steps=20,
    guidance=4.5,
    step_size=5.0,
    dtype="float16",
    architecture={
        "sample_size": 128,
        "caption_channels": 4096,
        "interpolation_scale": 2,
        "use_additional_conditions": False,
    },
)
VARIANTS = (_USUAL,)


class PixArt(VariancePreserving, Transformer):
    """The facts of PixArt-Sigma and PixArt-Alpha pipelines."""

    name = "pixart"
    network = "PixArtTransformer2DModel"
    former_networks: tuple[str, ...] = ("Transformer2DModel",)  # the class of DiT, too
    dtype = "float16"
    # The usual one of these models comes first.
    schedulers = (
        "DPMSolverMultistepScheduler",
        *(name for name in VariancePreserving.schedulers if name != "DPMSolverMultistepScheduler"),
    )
    pipelines: tuple[str, ...] = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
    blocks: Mapping[str, str] = {"transformer_blocks": "attn2"}
    text_place = "only"
    own_attention: str | None = "attn1"
    parameters: tuple[str, ...] = ("hidden_states", "encoder_hidden_states", "timestep")
    usual = _USUAL

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        return config.get("norm_type") == "ada_norm_single"

    def default_variant(self, pipe: Any, model: str) -> Variant:
        side = int(pipe.transformer.config.sample_size) * int(pipe.vae_scale_factor)
        return replace(self.usual, name=model, source=model, resolution=side, architecture={}, unconfirmed=())

    def attention(self, denoiser: Any) -> tuple[Any, ...]:
        return tuple(module for name, module in denoiser.named_modules() if name.endswith((".attn1", ".attn2")))

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[Span], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        text, moved = self.as_encoded(pipe, prompt, spans, arguments)
        limit = int(given(pipe, "max_sequence_length", arguments))
        return token_indices(self.tokenizer(pipe), text, moved, max_length=limit)

    def as_encoded(
        self, pipe: Any, prompt: str, spans: Sequence[Span], arguments: Mapping[str, Any]
    ) -> tuple[str, list[Span]]:
        """Return a prompt as the pipeline encodes it, and where the spans are in it.

        Args:
            pipe: The pipeline.
            prompt: The prompt.
            spans: Character offsets (start, end) in the prompt.
            arguments: Other arguments of the pipeline call.

        Raises:
            PromptError: The pipeline changes the words of a span.
        """
        from diffusers.utils import is_bs4_available, is_ftfy_available

        # Without these packages the pipeline cleans nothing, and warns of it at every call.
        clean = bool(given(pipe, "clean_caption", arguments)) and is_bs4_available() and is_ftfy_available()
        (text,) = pipe._text_preprocessing(prompt, clean_caption=clean)
        return text, [(0, len(text)) if span == (0, len(prompt)) else _moved(prompt, span, text) for span in spans]

    def predicted(self, output: Any, call: Call) -> Tensor:
        prediction: Tensor = output[:, : call.latents.shape[1]]  # the others are a variance, which is not used
        return prediction

    def drawn_size(self, pipe: Any, height: int, width: int, arguments: Mapping[str, Any]) -> tuple[int, int]:
        sizes = _sizes().get(int(pipe.transformer.config.sample_size) * int(pipe.vae_scale_factor))
        if sizes is None or not given(pipe, "use_resolution_binning", arguments):
            return height, width
        drawn: tuple[int, int] = pipe.image_processor.classify_height_width_bin(height, width, ratios=sizes)
        return drawn

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return super().record_arguments(pipe) | {"use_resolution_binning": False}


def given(pipe: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Return an argument of a pipeline call, or its default, which differs between pipelines.

    Args:
        pipe: The pipeline.
        name: Of the argument.
        arguments: Those that are given.
    """
    return arguments[name] if name in arguments else inspect.signature(type(pipe).__call__).parameters[name].default


def _moved(prompt: str, span: Span, text: str) -> Span:
    """Where the words of a span of the prompt are in what the pipeline made of it."""
    words, start = prompt[slice(*span)].lower(), len(prompt[: span[0]].lower())
    before, after = _places(prompt.lower(), words), _places(text, words)
    if start not in before or len(before) != len(after):
        raise PromptError(
            f"the pipeline cleans the prompt before it encodes it, and {prompt[slice(*span)]!r} is not clearly a part "
            f"of what is left: {text!r}; name the object in plain words, or give clean_caption=False"
        )
    place = after[before.index(start)]
    return place, place + len(words)


def _places(text: str, words: str) -> list[int]:
    return [place for place in range(len(text)) if text.startswith(words, place)]


def _sizes() -> dict[int, dict[str, list[float]]]:
    """By the side of a model's square images in pixels, the sizes at which its pipeline draws."""
    from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha, pipeline_pixart_sigma
    from diffusers.pipelines.sana import pipeline_sana

    return {
        256: pipeline_pixart_alpha.ASPECT_RATIO_256_BIN,
        512: pipeline_pixart_alpha.ASPECT_RATIO_512_BIN,
        1024: pipeline_pixart_alpha.ASPECT_RATIO_1024_BIN,
        2048: pipeline_pixart_sigma.ASPECT_RATIO_2048_BIN,
        4096: pipeline_sana.ASPECT_RATIO_4096_BIN,
    }


FAMILY = PixArt()
