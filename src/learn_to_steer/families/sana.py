"""Sana: a transformer with linear self-attention and ordinary text cross-attention, rectified flow.

The maps of every cross-attention (``attn2``) are captured. The pipeline puts an instruction before the prompt for its
language model, and then drops the instruction's tokens. Otherwise prompts and sizes are treated as by PixArt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.defaults import RectifiedFlow
from learn_to_steer.families.pixart import PixArt, Span, given
from learn_to_steer.families.variant import Variant
from learn_to_steer.prompts import token_indices

_USUAL = Variant(
    name="sana",
    family="sana",
    source="Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
    resolution=1024,
    steps=20,
    guidance=4.5,
    step_size=5.0,
    dtype="bfloat16",
    unconfirmed=("guidance",),  # the authors' examples have 4.5 and 5
)
VARIANTS = (_USUAL,)
_SOLVER = "DPMSolverMultistepScheduler"


class Sana(RectifiedFlow, PixArt):
    """The facts of Sana pipelines. Sana-Sprint, with guidance as an input and another kind of time, is not one."""

    name = "sana"
    network = "SanaTransformer2DModel"
    former_networks = ()
    dtype = "bfloat16"
    schedulers = (_SOLVER, "FlowMatchEulerDiscreteScheduler")
    pipelines = ("SanaPipeline", "SanaControlNetPipeline")
    own_attention = None  # linear: it has no maps
    parameters = ("hidden_states", "encoder_hidden_states", "timestep", "guidance")
    usual = _USUAL

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        return not config.get("guidance_embeds")

    def check(self, pipe: Any) -> None:
        if type(pipe.scheduler).__name__ == _SOLVER and not pipe.scheduler.config.get("use_flow_sigmas"):
            raise UnsupportedError(
                "the scheduler is not set for rectified flow, which Sana is; set it: pipe.scheduler = diffusers."
                f'{_SOLVER}(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)'
            )

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        if len(prompts) > 1 and int(arguments.get("num_images_per_prompt") or 1) > 1:
            # The pipeline repeats masks in another order than texts.
            raise UnsupportedError(
                "Sana's pipeline cuts off texts at the lengths of other ones where it makes several images of several "
                "prompts; leave num_images_per_prompt out, and give a prompt once for each of its images"
            )
        return list(prompts)

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[Span], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        instruction = given(pipe, "complex_human_instruction", arguments)
        if not instruction:
            return super().token_indices(pipe, prompt, spans, arguments)
        text, moved = self.as_encoded(pipe, prompt, spans, arguments)
        tokenizer, before = self.tokenizer(pipe), "\n".join(instruction)
        # Start token and prompt stay. The space at the instruction's end is part of the prompt's first token.
        dropped = len(tokenizer.encode(before)) - 2
        limit = int(given(pipe, "max_sequence_length", arguments)) + dropped
        shifted = [(len(before) + start, len(before) + end) for start, end in moved]
        found = token_indices(tokenizer, before + text, shifted, max_length=limit)
        return [tuple(column - dropped for column in columns) for columns in found]

    def sigma(self, pipe: Any, time: Tensor) -> Tensor:
        return time / self._full_time(pipe)

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        return levels * self._full_time(pipe)

    def model_timestep(self, pipe: Any, timestep: Tensor) -> Tensor:
        return timestep * (self._full_time(pipe) / 1000)

    def _full_time(self, pipe: Any) -> float:
        return 1000 * float(pipe.transformer.config.get("timestep_scale") or 1)


FAMILY = Sana()
