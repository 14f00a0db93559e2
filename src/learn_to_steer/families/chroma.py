"""Chroma: FLUX.1 with fewer inputs, one text encoder, a mask over the text's padding, and true guidance.

The maps and their order are those of FLUX.1. The mask leaves one token of padding in, as the model was trained; the
columns after it are no part of the maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from learn_to_steer.families.base import Call
from learn_to_steer.families.flux import Flux
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import TextSpan

VARIANTS = (
    Variant(
        name="chroma",
        family="chroma",
        source="lodestones/Chroma1-HD",
        resolution=1024,
        steps=40,
        guidance=3.0,
        step_size=5.0,
        dtype="bfloat16",
    ),
)
_MASK: ContextVar[Tensor | None] = ContextVar("learn_to_steer_chroma_mask", default=None)  # of the call under way


class Chroma(Flux):
    """The facts of Chroma pipelines. Latents are packed, as FLUX's are."""

    name = "chroma"
    network = "ChromaTransformer2DModel"
    parameters = (
        "hidden_states",
        "encoder_hidden_states",
        "timestep",
        "img_ids",
        "txt_ids",
        "attention_mask",
        "joint_attention_kwargs",
    )
    pipelines = ("ChromaPipeline", "ChromaImg2ImgPipeline")

    def default_variant(self, pipe: Any, model: str) -> Variant:
        return replace(VARIANTS[0], name=model, source=model)

    def tokenizer(self, pipe: Any) -> Any:
        return pipe.tokenizer

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        return list(prompts)

    def spans(self, denoiser: nn.Module, call: Call) -> Sequence[TextSpan] | None:
        mask, columns = call.rest.get("attention_mask"), self.text_length(call)
        if mask is None:
            return None
        return [TextSpan(0, own, columns) for own in (mask[:, :columns] > 0).sum(dim=1).tolist()]

    @contextmanager
    def mended(self, denoiser: Any) -> Iterator[None]:
        """See ``Family.mended``: with gradient checkpointing, diffusers gives single blocks no mask."""

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            _MASK.set(kwargs.get("attention_mask"))

        def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            is_left_out = len(args) < 4 and "attention_mask" not in kwargs  # it is the fourth parameter
            return (args, {**kwargs, "attention_mask": _MASK.get()}) if is_left_out else None

        outer = _MASK.get()
        handles = [denoiser.register_forward_pre_hook(keep, with_kwargs=True)]
        handles += [b.register_forward_pre_hook(add, with_kwargs=True) for b in denoiser.single_transformer_blocks]
        try:
            yield
        finally:
            _MASK.set(outer)
            for handle in handles:
                handle.remove()

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {"guidance_scale": 1.0}


FAMILY = Chroma()
