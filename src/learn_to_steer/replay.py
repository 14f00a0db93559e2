"""Record a pipeline's conditioning, then call its denoiser again with other latents and times.

Inversion and collection need text embeddings, ids and guidance tensors exactly as the pipeline builds them.
Instead of one encoder per family, a pipeline call is stopped at its first denoiser call and its arguments
are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.families import Call, Family


class _Stop(BaseException):
    """Carries the first denoiser call out of the pipeline; no pipeline catches it."""


@dataclass(frozen=True)
class Recording:
    """The conditioning of some prompts, ready to be run at any latents and time.

    Rows are the prompts in order. ``rows`` picks some of them.
    """

    family: Family
    denoiser: nn.Module
    call: Call

    @property
    def batch(self) -> int:
        return self.call.latents.shape[0]

    def __call__(self, latents: Tensor, time: Tensor) -> Tensor:
        """The denoiser's raw prediction for ``latents`` (batch, ...) at ``time`` (scalar or (batch,))."""
        call = replace(self.call, latents=latents.to(self.call.latents.dtype), time=time.to(latents.device))
        prediction: Tensor = self.denoiser(**self.family.write(call) | {"return_dict": False})[0]
        return prediction

    def rows(self, index: Tensor) -> Recording:
        """The recording of the prompts at ``index``."""
        return replace(self, call=sliced(self.call, index, self.batch))


def sliced(call: Call, index: Tensor, batch: int) -> Call:
    """``call`` with only the samples at ``index``: every tensor whose first axis is the batch is cut alike.

    That reaches nested ones too (ControlNet residuals, ``added_cond_kwargs``), but not what is ``shared``.
    """

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[index.to(value.device)] if value.ndim and value.shape[0] == batch else value
        if isinstance(value, (tuple, list)):
            return type(value)(cut(v) for v in value)
        if isinstance(value, Mapping):
            return {key: cut(v) for key, v in value.items()}
        return value

    return Call(cut(call.latents), cut(call.time), cut(call.rest), call.shared)


@contextmanager
def silenced(pipe: Any) -> Iterator[None]:
    """No progress bar from ``pipe`` inside; its own settings are restored."""
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
) -> Recording:
    """Run ``pipe`` up to its first denoiser call and keep the arguments (conditional batch alone).

    ``height`` and ``width`` in pixels; ``arguments`` are further ones of the pipeline call, whose scheduler is left
    set to ``steps``. Uses no random numbers, shows no progress bar, and frees what the pipeline's offloading hooks
    loaded.
    """
    denoiser: nn.Module = getattr(pipe, family.denoiser)
    caught: list[Call] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(family.read(denoiser, args, kwargs))
        raise _Stop

    handle = denoiser.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with silenced(pipe), torch.no_grad():
            latents = family.empty_latents(pipe, len(prompts), height, width)
            given = dict(arguments or {}) | family.record_arguments(pipe)
            given |= {"height": height, "width": width, "latents": latents, "num_inference_steps": steps}
            pipe(list(prompts), **given)
    except _Stop:
        pass
    finally:
        handle.remove()
        pipe.maybe_free_model_hooks()
    return Recording(family, denoiser, caught[0])
