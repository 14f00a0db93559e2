"""Records a pipeline's conditioning once, so that its denoiser can be called again with other latents and times.

Inversion and collection need text embeddings, ids and guidance tensors exactly as the pipeline builds them. Instead of
one encoder per family, a pipeline call is stopped at its first denoiser call and its arguments are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from learn_to_steer.families import Call, Family

# The recording under way in this context; other calls of the same denoiser, from other threads, are not stopped.
_RECORDING: ContextVar[object | None] = ContextVar("learn_to_steer_recording", default=None)


class _Stop(BaseException):
    """Ends the pipeline call at its first denoiser call; a BaseException, so that no pipeline catches it."""


@dataclass(frozen=True)
class ConditioningSnapshot:
    """The conditioning of some prompts, with which the denoiser can be run on any latents at any time.

    Attributes:
        family: The facts of the model family.
        denoiser: The UNet or transformer.
        call: The recorded denoiser call, one row per prompt, in the prompts' order.
    """

    family: Family
    denoiser: nn.Module
    call: Call

    @property
    def batch(self) -> int:
        """The number of prompts."""
        return self.call.latents.shape[0]

    def __call__(
        self, latents: Float[Tensor, "batch *latents"], time: Shaped[Tensor, "*rows"]
    ) -> Float[Tensor, "batch *latents"]:
        """Run the denoiser.

        Args:
            latents: The denoiser's input; cast to the dtype of the recorded call.
            time: The timestep in the denoiser's own unit (``Call.time``), a scalar or one value per row.

        Returns:
            The denoiser's prediction (noise, velocity, ...), as the pipeline gives it to the scheduler.
        """
        call = replace(self.call, latents=latents.to(self.call.latents.dtype), time=time.to(latents.device))
        return self.family.predicted(self.denoiser(**self.family.write(call) | {"return_dict": False})[0], call)


@contextmanager
def silenced(pipe: Any) -> Iterator[None]:
    """Switch the progress bar of ``pipe`` off inside the context; its settings are restored afterwards."""
    before = getattr(pipe, "_progress_bar_config", None)
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        if before is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = before


def record(
    pipe: Any,
    family: Family,
    prompts: Sequence[str],
    height: int,
    width: int,
    arguments: Mapping[str, Any] | None = None,
    steps: int = 2,
) -> ConditioningSnapshot:
    """Run ``pipe`` up to its first denoiser call and keep the arguments of that call.

    Draws no random numbers, shows no progress bar, and offloads what the pipeline's offloading hooks loaded. The
    scheduler's timesteps are those of ``steps`` afterwards.

    Args:
        pipe: A diffusers pipeline.
        family: Its family.
        prompts: One row each; only the conditional rows are kept.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        arguments: Further arguments of the pipeline call.
        steps: Denoising steps of the pipeline call.

    Returns:
        The snapshot, whose rows are in the order of ``prompts``.
    """
    denoiser: nn.Module = getattr(pipe, family.denoiser)
    caught: list[Call] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _RECORDING.get() is caught:
            caught.append(family.read(denoiser, args, kwargs))
            raise _Stop

    outer = _RECORDING.get()
    _RECORDING.set(caught)
    handle = denoiser.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with silenced(pipe), torch.no_grad():
            latents = family.empty_latents(pipe, len(prompts), height, width)
            given = dict(arguments or {}) | family.record_arguments(pipe)
            given |= {"height": height, "width": width, "latents": latents, "num_inference_steps": steps}
            pipe(prompt=list(prompts), **given)
    except _Stop:
        pass
    finally:
        _RECORDING.set(outer)
        handle.remove()
        pipe.maybe_free_model_hooks()
    return ConditioningSnapshot(family, denoiser, caught[0])
