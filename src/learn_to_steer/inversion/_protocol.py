"""What an inversion is given and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from learn_to_steer.conditioning import ConditioningSnapshot


@dataclass(frozen=True)
class Task:
    """Samples to invert together.

    ``recording`` holds one prompt a sample, ``clean`` (n, ...) their clean latents in fp32 and ``pictures``
    (n, 3, H, W) what they show; ``times`` are what the network is fed at the kept levels, noisiest first; ``seeds``
    fix each sample's noise, so that it does not depend on what shares the batch.
    """

    pipe: Any
    recording: ConditioningSnapshot
    clean: Tensor
    pictures: Tensor
    times: Tensor
    seeds: Sequence[int]

    def noise(self, level: int) -> Tensor:
        """Standard normal noise like ``clean``: another one for every sample and level."""
        drawn = [
            # Drawn on the CPU: the same numbers on every device.
            torch.randn(self.clean.shape[1:], generator=torch.Generator().manual_seed(seed * 1000 + level))
            for seed in self.seeds
        ]
        return torch.stack(drawn).to(self.clean)


@dataclass(frozen=True)
class Quality:
    """How well each sample was inverted: ``value`` (n,) in ``unit``, and whether that is ``good`` (n,) enough."""

    value: Tensor
    good: Tensor
    unit: str


def regenerated(task: Task, latents: Tensor, least: float) -> Quality:
    """PSNR in dB of the pictures that ``latents`` decode to, against those of ``task``; good from ``least`` on."""
    shown = task.recording.family.decode(task.pipe, replace(task.recording.call, latents=latents))
    error = (shown - task.pictures.to(shown)).square().flatten(1).mean(dim=1)
    psnr = (-10 * torch.log10(error)).cpu()
    return Quality(psnr, psnr >= least, "PSNR of the regenerated picture in dB")


class Observe(Protocol):
    """Runs the denoiser and keeps the attention maps of that forward for a kept level."""

    def __call__(self, level: int, latents: Tensor, time: Tensor) -> Tensor:
        """The raw prediction (fp32) for ``latents`` at ``time``, which is ``Task.times[level]``."""
        ...


class Inversion(Protocol):
    """Shows the noisy latents of every kept level to ``observe``, each level once, and judges the result.

    ``limit`` replaces the quality a sample needs; its meaning is the way's own, and so are ``settings``. Call without
    gradients.
    """

    def __call__(self, task: Task, observe: Observe, *, limit: float | None = None, **settings: Any) -> Quality: ...
