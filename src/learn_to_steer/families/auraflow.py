"""AuraFlow: a transformer with joint attention of text and image, rectified flow.

The maps of every block are captured: joint blocks first, then single ones, and within a block by head. Among the
attention keys stand eight register tokens, then the text, then the image. The text is filled up with columns of zeros,
to which the image attends, too: on the left if the tokenizer does so, as Llama's does unless its config says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

from learn_to_steer.families.base import Call
from learn_to_steer.families.defaults import RectifiedFlow, Transformer
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import TextSpan

_USUAL = Variant(
    name="auraflow",
    family="auraflow",
    source="fal/AuraFlow-v0.3",
    resolution=1024,
    steps=50,
    guidance=3.5,
    step_size=5.0,
    dtype="float16",
    architecture={"pos_embed_max_size": 9216},
    unconfirmed=("resolution",),  # "up to 1536 pixels"; 1024 is that of the first release, and the pipeline's
)
VARIANTS = (_USUAL,)


class AuraFlow(RectifiedFlow, Transformer):
    """The facts of AuraFlow pipelines."""

    name = "auraflow"
    network = "AuraFlowTransformer2DModel"
    dtype = "float16"
    pipelines = ("AuraFlowPipeline",)
    blocks: Mapping[str, str] = {"joint_transformer_blocks": "attn", "single_transformer_blocks": "attn"}
    parameters = ("hidden_states", "encoder_hidden_states", "timestep", "attention_kwargs")
    longest_text = 256

    def default_variant(self, pipe: Any, model: str) -> Variant:
        # The sample_size of its config is that of the first stage of training.
        side = isqrt(pipe.transformer.config.pos_embed_max_size) * self.pixel_multiple(pipe)
        return replace(
            _USUAL, name=model, source=model, resolution=min(side, _USUAL.resolution), architecture={}, unconfirmed=()
        )

    def spans(self, denoiser: Any, call: Call) -> Sequence[TextSpan]:
        registers, text = int(denoiser.register_tokens.shape[1]), self.text_length(call)
        return [TextSpan(registers, text, registers + text)] * len(call.latents)

    def write(self, call: Call) -> dict[str, Any]:
        return super().write(replace(call, time=call.time.to(call.latents)))  # the dtype in which it is fed


FAMILY = AuraFlow()
