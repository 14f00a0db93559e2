"""Fixed-point DDIM inversion: latents from which deterministic sampling leads back to the image.

Source:
    Paper section 3 (dual inversion) with the authors' settings for Stable Diffusion: 50 steps, 5 iterations, no
    guidance, and a PSNR of at least 19.5 dB after sampling back. Unlike there, the network may predict any quantity
    (noise, velocity or clean latents), and inversion stops at the noisiest level to observe, which does not change
    the less noisy ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.inversion.base import InversionQuality, InversionTask, Observe, reconstruction_quality

STEPS = 50
ITERATIONS = 5
LEAST = 19.5  # dB


def invert(
    task: InversionTask,
    observe: Observe,
    *,
    limit: float | None = None,
    steps: int = STEPS,
    iterations: int = ITERATIONS,
    start: Literal["inverted", "noise"] = "inverted",
) -> InversionQuality:
    """Invert up to the noisiest level, sample back while observing, and compare the images.

    Takes at most ``steps * (iterations + 1)`` forward passes.

    Args:
        task: The samples.
        observe: Called once per noise level.
        limit: The lowest PSNR in dB of the decoded image that passes; None: 19.5.
        steps: The number of steps of the whole schedule.
        iterations: The number of fixed-point iterations per step.
        start: "inverted", or "noise" to add random noise instead of inverting (an ablation).

    Returns:
        The PSNR of the decoded images in dB.

    Raises:
        UnsupportedError: The scheduler has no ``alphas_cumprod``.
        DataError: A noise level is 0, or ``start`` has another value.
    """
    if start not in ("inverted", "noise"):
        raise DataError(f"start must be 'inverted' or 'noise', not {start!r}")
    ddim = _Ddim(task)
    if start == "inverted":
        latents, grid = ddim.invert(steps, iterations)
    else:
        grid = ddim.grid(steps)
        latents = task.recording.family.add_noise(task.pipe, task.clean, task.noise(0), torch.tensor(grid[-1]))
    kept = [int(time) for time in task.times]
    for time, after in zip(grid[:0:-1], grid[-2::-1], strict=True):
        moment = torch.tensor(time)
        if time in kept:
            prediction = observe(kept.index(time), latents, moment)
        else:
            prediction = task.recording(latents, moment).float()
        latents = ddim.step(latents, prediction, time, after)
    return reconstruction_quality(task, latents, LEAST if limit is None else limit)


@dataclass(frozen=True)
class _Ddim:
    """DDIM steps for any family whose noisy latents are a weighted sum of clean latents and noise."""

    task: InversionTask

    def invert(self, steps: int, iterations: int) -> tuple[Tensor, list[int]]:
        """The latents at the noisiest time to observe, and the times of all steps, least noisy first."""
        grid = self.grid(steps)
        latents = self.task.clean
        for time, after in pairwise(grid):
            before = latents
            for _ in range(iterations):
                # Solves step(latents, after -> time) = before for latents, with the predicted noise held constant.
                prediction = self.task.recording(latents, torch.tensor(after)).float()
                noise = self._split(latents, prediction, after)[1]
                clean = (before - self._factor(0.0, time) * noise) / self._factor(1.0, time)
                latents = self._add_noise(clean, noise, after)
        return latents, grid

    def step(self, latents: Tensor, prediction: Tensor, time: int, after: int) -> Tensor:
        """One DDIM step (eta = 0) from ``time`` to the less noisy ``after``."""
        return self._add_noise(*self._split(latents, prediction, time), after)

    def _split(self, latents: Tensor, prediction: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that ``prediction`` implies."""
        clean = self.task.recording.family.predict_clean(self.task.pipe, latents, prediction, torch.tensor(time))
        return clean, (latents - self._factor(1.0, time) * clean) / self._factor(0.0, time)

    def _add_noise(self, clean: Tensor, noise: Tensor, time: int) -> Tensor:
        return self.task.recording.family.add_noise(self.task.pipe, clean, noise, torch.tensor(time))

    def _factor(self, clean: float, time: int) -> Tensor:
        """The weight at ``time`` of the clean latents (``clean`` = 1) or of the noise (``clean`` = 0)."""
        like = self.task.clean[:1]
        return self._add_noise(torch.full_like(like, clean), torch.full_like(like, 1 - clean), time)

    def grid(self, steps: int) -> list[int]:
        """The times of a DDIM run with ``steps`` steps and the times to observe, from 0 to the noisiest to observe."""
        scheduler: Any = self.task.pipe.scheduler
        if getattr(scheduler, "alphas_cumprod", None) is None:
            raise UnsupportedError(
                f"{type(scheduler).__name__} has no alphas_cumprod, which DDIM steps need; use the inversion 'noise'"
            )
        own = type(scheduler).from_config(scheduler.config)
        own.set_timesteps(steps)
        kept = {int(time) for time in self.task.times}
        if 0 in kept:
            raise DataError("the lowest noise level is 0, the clean image; give levels above 0")
        between = {round(float(time)) for time in own.timesteps} | kept
        # Time 0 stands for the clean image; its remaining noise (DDIM's final alpha) is negligible.
        return [0, *sorted(time for time in between if 0 < time <= max(kept))]
