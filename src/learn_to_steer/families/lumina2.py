"""Lumina-Image 2.0: a transformer with one sequence of text and image, rectified flow.

The maps of every block of the joint stack are captured. Each sample's own text stands first among the attention keys,
then its image, and padding last. The prompt follows a text that tells the encoder what it is for. The time runs from 0
at pure noise to 1, and the negative of what the scheduler takes is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from learn_to_steer.families.base import Call
from learn_to_steer.families.defaults import RectifiedFlow, Transformer
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import TextSpan

_USUAL = Variant(
    name="lumina2",
    family="lumina2",
    source="Alpha-VLLM/Lumina-Image-2.0",
    resolution=1024,
    steps=50,
    guidance=4.0,
    step_size=5.0,
    dtype="bfloat16",
    arguments={"cfg_trunc_ratio": 0.25, "cfg_normalization": True},
    architecture={"cap_feat_dim": 2304},
)
VARIANTS = (_USUAL,)


class Lumina2(RectifiedFlow, Transformer):
    """The facts of Lumina-Image 2.0 pipelines."""

    name = "lumina2"
    network = "Lumina2Transformer2DModel"
    pipelines = ("Lumina2Pipeline",)
    masks = ("encoder_attention_mask",)
    blocks: Mapping[str, str] = {"layers": "attn"}
    parameters = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask", "attention_kwargs")
    longest_text = 256

    def default_variant(self, pipe: Any, model: str) -> Variant:
        side = int(pipe.default_image_size)
        return replace(_USUAL, name=model, source=model, resolution=side, architecture={})

    def attention(self, denoiser: Any) -> tuple[Any, ...]:
        return tuple(module for name, module in denoiser.named_modules() if name.endswith(".attn"))

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        given = arguments.get("system_prompt")
        before = (pipe.system_prompt if given is None else given) + " <Prompt Start> "
        moved = [(start + len(before), end + len(before)) for start, end in spans]
        return super().token_indices(pipe, before + prompt, moved, arguments)

    def text_length(self, call: Call) -> int:
        return int(call.rest["encoder_attention_mask"].sum(1).max())

    def spans(self, denoiser: Any, call: Call) -> Sequence[TextSpan]:
        lengths = call.rest["encoder_attention_mask"].sum(1).tolist()
        return [TextSpan(0, length, length) for length in map(int, lengths)]

    def predicted(self, output: Any, call: Call) -> Tensor:
        negative: Tensor = output
        return -negative

    def sigma(self, pipe: Any, time: Tensor) -> Tensor:
        return 1 - time

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        return 1 - levels

    def model_timestep(self, pipe: Any, timestep: Tensor) -> Tensor:
        return 1 - timestep / int(pipe.scheduler.config.num_train_timesteps)


FAMILY = Lumina2()
