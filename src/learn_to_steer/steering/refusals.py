"""What ``Steerer.on`` refuses besides the models and pipelines that ``compatibility`` knows not to work."""

from __future__ import annotations

from typing import Any

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import DENOISERS
from learn_to_steer.steering.config import SteeringConfig


def check_update(pipe: Any, config: SteeringConfig) -> None:
    """Refuse ``update="prediction"`` for a model that does not predict the noise.

    Args:
        pipe: A diffusers pipeline.
        config: The settings.

    Raises:
        UnsupportedError: The model predicts something else; the message says what.
    """
    kind = pipe.scheduler.config.get("prediction_type", "flow")
    if config.update == "prediction" and kind != "epsilon":
        raise UnsupportedError(
            f"{config.profile} adds to the predicted noise, but the model predicts {kind!r}; use a model whose "
            "scheduler has prediction_type 'epsilon', or move the latents (--profile fixed-budget)"
        )


def refuse_modular(pipe: Any) -> None:
    """Refuse a modular pipeline, whose calls return what the caller asks for, without a place for the report.

    Args:
        pipe: A diffusers pipeline.

    Raises:
        UnsupportedError: It is modular; the message names what steers it.
    """
    if "ModularPipeline" in {kind.__name__ for kind in type(pipe).__mro__}:
        raise UnsupportedError(
            f"{type(pipe).__name__} is steered by a block of its own: steered = SteerStep.into(pipe, steerer), "
            "from learn_to_steer.modular"
        )


def refuse_wrapped(pipe: Any) -> None:
    """Refuse a denoiser whose kernels have no backward, before ``families.find`` looks for its class.

    Args:
        pipe: A diffusers pipeline.

    Raises:
        UnsupportedError: The denoiser runs on such kernels; the message names another way to save memory.
    """
    for name in DENOISERS:
        if type(getattr(pipe, name, None)).__module__.partition(".")[0] == "nunchaku":
            raise UnsupportedError(
                f"pipe.{name} runs on nunchaku's kernels, which have no gradient; load the model's own weights, "
                "quantised with --quantize 4bit if they are too large"
            )
