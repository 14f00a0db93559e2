"""What an inversion must offer: a module with a function ``invert`` (see ``Inversion``); and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from learn_to_steer.conditioning import ConditioningSnapshot


@dataclass(frozen=True)
class InversionTask:
    """Samples to invert together."""

    pipe: Any
    """The diffusers pipeline."""
    recording: ConditioningSnapshot
    """The denoiser with the conditioning of one prompt a sample."""
    clean: Float[Tensor, "batch ..."]
    """Clean latents in fp32."""
    images: Float[Tensor, "batch 3 height width"]
    """The images that they show, RGB in [0, 1]."""
    times: Float[Tensor, " levels"]
    """What the network is fed at the noise levels to observe, noisiest first."""
    seeds: Sequence[int]
    """One seed a sample, so that its noise does not depend on the rest of the batch."""

    def noise(self, level: int) -> Float[Tensor, "batch ..."]:
        """Return standard normal noise, different for every sample and index of a level."""
        drawn = [
            # Drawn on the CPU: the same numbers on every device.
            torch.randn(self.clean.shape[1:], generator=torch.Generator().manual_seed(seed * 1000 + level))
            for seed in self.seeds
        ]
        return torch.stack(drawn).to(self.clean)


@dataclass(frozen=True)
class InversionQuality:
    """How well each sample was inverted."""

    value: Float[Tensor, " batch"]
    good: Bool[Tensor, " batch"]
    """Whether ``value`` is good enough."""
    unit: str
    """What ``value`` measures."""


class Observe(Protocol):
    """Runs the denoiser once and keeps the attention maps of that forward."""

    def __call__(self, level: int, latents: Tensor, time: Tensor) -> Tensor:
        """Return the raw prediction in fp32.

        Args:
            level: Index into ``InversionTask.times``.
            latents: Noisy latents at that level.
            time: ``InversionTask.times[level]``.
        """
        ...


class Inversion(Protocol):
    """Shows the noisy latents of every noise level to ``observe``, each level once, and rates the result."""

    def __call__(
        self, task: InversionTask, observe: Observe, *, limit: float | None = None, **settings: Any
    ) -> InversionQuality:
        """Invert the samples of a task, without gradients.

        Args:
            task: The samples.
            observe: Called once for every level.
            limit: The quality that a sample needs, in the unit of this inversion; None: its default.
            settings: Further arguments of this inversion.
        """
        ...


def reconstruction_quality(task: InversionTask, latents: Tensor, least: float) -> InversionQuality:
    """Compare the images that ``latents`` decode to with those of the task.

    Args:
        task: The samples.
        latents: Latents after inversion and sampling.
        least: The least PSNR in dB that is good enough.
    """
    decoded = task.recording.family.decode(task.pipe, replace(task.recording.call, latents=latents))
    error = (decoded - task.images.to(decoded)).square().flatten(1).mean(dim=1)
    psnr = (-10 * torch.log10(error)).cpu()
    return InversionQuality(psnr, psnr >= least, "PSNR of the regenerated picture in dB")
