"""What an inversion must offer: a module with a function ``invert``, as described by ``Inversion``."""

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
    """The samples of one batch to invert. A sample is an image with a prompt."""

    pipe: Any
    """The diffusers pipeline."""
    recording: ConditioningSnapshot
    """The denoiser with the conditioning of the prompts."""
    clean: Float[Tensor, "batch ..."]
    """Clean latents in fp32."""
    images: Float[Tensor, "batch 3 height width"]
    """The images of the latents, RGB in [0, 1]."""
    times: Float[Tensor, " levels"]
    """Times, as the denoiser takes them, of the noise levels to observe; noisiest first."""
    seeds: Sequence[int]
    """One seed per sample, so that its noise does not depend on the other samples."""

    def noise(self, level: int) -> Float[Tensor, "batch ..."]:
        """Return standard normal noise, different for every sample and level.

        Args:
            level: Index into ``times``.
        """
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
    """The measured quality, in ``unit``."""
    good: Bool[Tensor, " batch"]
    """Whether the sample passes the quality check."""
    unit: str
    """What ``value`` measures."""


class Observe(Protocol):
    """Runs the denoiser once and records its attention maps."""

    def __call__(self, level: int, latents: Tensor, time: Tensor) -> Tensor:
        """Return the output of the denoiser in fp32.

        Args:
            level: Index into ``InversionTask.times``.
            latents: Noisy latents at that level.
            time: ``InversionTask.times[level]``.
        """
        ...


class Inversion(Protocol):
    """Calls ``observe`` once per noise level with noisy latents, and rates how well the samples were inverted."""

    def __call__(
        self, task: InversionTask, observe: Observe, *, limit: float | None = None, **settings: Any
    ) -> InversionQuality:
        """Invert the samples of a task, without gradients.

        Args:
            task: The samples.
            observe: Called once per noise level.
            limit: The threshold of the quality check, in the unit of this inversion; None: its default.
            settings: Further arguments of this inversion.

        Returns:
            The quality of every sample.
        """
        ...


def reconstruction_quality(task: InversionTask, latents: Tensor, least: float) -> InversionQuality:
    """Decode latents and compare the result with the images of the task.

    Args:
        task: The samples.
        latents: Latents after inversion and sampling.
        least: The lowest PSNR in dB that passes.

    Returns:
        The PSNR of every sample in dB.
    """
    decoded = task.recording.family.decode(task.pipe, replace(task.recording.call, latents=latents))
    error = (decoded - task.images.to(decoded)).square().flatten(1).mean(dim=1)
    psnr = (-10 * torch.log10(error)).cpu()
    return InversionQuality(psnr, psnr >= least, "PSNR of the regenerated picture in dB")
