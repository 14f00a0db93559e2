"""CogView4: a transformer with joint attention of text and image, rectified flow.

The maps of every block are captured. The text stands before the image among the attention keys. It is filled up on the
left, to the longest text of the batch and a multiple of 16, and nothing in a call says how far: text columns count from
the end. The image attends to the padding, too.

The time that is fed is not the noise level: the scheduler shifts the noise levels of a schedule, by more the larger the
image is, but leaves its times as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.defaults import RectifiedFlow, Transformer
from learn_to_steer.families.variant import Variant

_USUAL = Variant(
    name="cogview4",
    family="cogview4",
    source="THUDM/CogView4-6B",
    resolution=1024,
    steps=50,
    guidance=3.5,
    step_size=5.0,
    dtype="bfloat16",
    note="its publisher says that it overflows in float16",
    architecture={"num_layers": 28, "num_attention_heads": 32, "attention_head_dim": 128},
)
VARIANTS = (_USUAL,)


class CogView4(RectifiedFlow, Transformer):
    """The facts of CogView4 pipelines."""

    name = "cogview4"
    network = "CogView4Transformer2DModel"
    pipelines = ("CogView4Pipeline",)
    blocks: Mapping[str, str] = {"transformer_blocks": "attn1"}
    parameters = (
        "hidden_states",
        "encoder_hidden_states",
        "timestep",
        "original_size",
        "target_size",
        "crop_coords",
        "attention_kwargs",
    )
    longest_text = 1024
    full_time = 1000.0

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        if pipe.tokenizer is not None and pipe.tokenizer.padding_side != "left":
            raise UnsupportedError(
                "the tokenizer fills texts up on the right, but the pipeline on the left, so that a word's place in "
                'the text would depend on the other prompts; set pipe.tokenizer.padding_side = "left"'
            )

    def default_variant(self, pipe: Any, model: str) -> Variant:
        side = int(pipe.transformer.config.sample_size * pipe.vae_scale_factor)
        return replace(_USUAL, name=model, source=model, resolution=side, architecture={}, note="")

    def sigma(self, pipe: Any, time: Tensor) -> Tensor:
        share = time / self.full_time
        return share / (share + (1 - share) / _shift(pipe.scheduler))

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        return self.full_time * levels / (levels + (1 - levels) * _shift(pipe.scheduler))


def _shift(scheduler: Any) -> float:
    """By how much the noise levels of the scheduler's schedule are shifted, for the size that it was last set to."""
    timesteps, levels = (values.cpu().double() for values in (scheduler.timesteps, scheduler.sigmas))
    shares, levels = timesteps / scheduler.config.num_train_timesteps, levels[: len(timesteps)]
    place = int((levels * (1 - levels)).argmax())  # where rounding matters least
    share, level = float(shares[place]), float(levels[place])
    # A schedule of pure noise alone says nothing, and nothing depends on it.
    return level * (1 - share) / (share * (1 - level)) if 0 < level < 1 and 0 < share < 1 else 1.0


FAMILY = CogView4()
