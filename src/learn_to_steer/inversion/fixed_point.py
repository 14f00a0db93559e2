"""Fixed-point DDIM inversion: latents from which deterministic sampling comes back to the picture.

*Source:* the authors' inversion for Stable Diffusion (official_implementation, 7.2): 50 times, 5 iterations, no
guidance, the picture must come back with at least 19.5 dB. *Differs:* any predicted quantity is understood, for the
step is written in clean latents and noise; inversion stops at the noisiest kept level, which changes nothing below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.inversion._protocol import Observe, Quality, Task, regenerated

STEPS = 50
ITERATIONS = 5
LEAST = 19.5  # dB


def invert(
    task: Task,
    observe: Observe,
    *,
    limit: float | None = None,
    steps: int = STEPS,
    iterations: int = ITERATIONS,
    start: Literal["inverted", "noise"] = "inverted",
) -> Quality:
    """Invert up to the noisiest kept level, sample back with the kept levels observed, compare the pictures.

    Quality is the PSNR in dB of the decoded picture; ``limit`` is the least that is good enough. Costs
    ``steps * (iterations + 1)`` forwards a sample at most. ``start`` "noise" does not invert but mixes fresh noise in,
    which says what the way up is worth. Raises UnsupportedError for a scheduler without DDIM's table of noise levels,
    DataError for a level without noise or another start.
    """
    if start not in ("inverted", "noise"):
        raise DataError(f"start is inverted or noise, not {start!r}")
    walk = _Walk(task)
    if start == "inverted":
        latents, grid = walk.up(steps, iterations)
    else:
        grid = walk.grid(steps)
        latents = task.recording.family.mix(task.pipe, task.clean, task.noise(0), torch.tensor(grid[-1]))
    kept = [int(time) for time in task.times]
    for time, after in zip(grid[:0:-1], grid[-2::-1], strict=True):
        moment = torch.tensor(time)
        if time in kept:
            prediction = observe(kept.index(time), latents, moment)
        else:
            prediction = task.recording(latents, moment).float()
        latents = walk.step(latents, prediction, time, after)
    return regenerated(task, latents, LEAST if limit is None else limit)


@dataclass(frozen=True)
class _Walk:
    """Deterministic steps between times, for any family whose mixing of clean latents and noise is linear."""

    task: Task

    def up(self, steps: int, iterations: int) -> tuple[Tensor, list[int]]:
        """Latents at the noisiest kept time, and the times gone through, cleanest first."""
        grid = self.grid(steps)
        latents = self.task.clean
        for time, after in pairwise(grid):
            before = latents
            for _ in range(iterations):
                # Solves step(latents, after -> time) = before for latents, the noise in them taken as known.
                prediction = self.task.recording(latents, torch.tensor(after)).float()
                noise = self._parts(latents, prediction, after)[1]
                clean = (before - self._share(0.0, time) * noise) / self._share(1.0, time)
                latents = self._mix(clean, noise, after)
        return latents, grid

    def step(self, latents: Tensor, prediction: Tensor, time: int, after: int) -> Tensor:
        """One DDIM step (eta 0) from ``time`` to the cleaner ``after``."""
        return self._mix(*self._parts(latents, prediction, time), after)

    def _parts(self, latents: Tensor, prediction: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Clean latents and noise that ``prediction`` stands for."""
        clean = self.task.recording.family.clean_estimate(self.task.pipe, latents, prediction, torch.tensor(time))
        return clean, (latents - self._share(1.0, time) * clean) / self._share(0.0, time)

    def _mix(self, clean: Tensor, noise: Tensor, time: int) -> Tensor:
        return self.task.recording.family.mix(self.task.pipe, clean, noise, torch.tensor(time))

    def _share(self, clean: float, time: int) -> Tensor:
        """The factor of the clean latents (``clean`` 1) or of the noise (0) at ``time``."""
        like = self.task.clean[:1]
        return self._mix(torch.full_like(like, clean), torch.full_like(like, 1 - clean), time)

    def grid(self, steps: int) -> list[int]:
        """Times of a DDIM run of ``steps`` and the kept ones, from the cleanest to the noisiest kept."""
        scheduler: Any = self.task.pipe.scheduler
        if getattr(scheduler, "alphas_cumprod", None) is None:
            raise UnsupportedError(
                f"{type(scheduler).__name__} has no table of noise levels for DDIM; use the inversion 'noise'"
            )
        own = type(scheduler).from_config(scheduler.config)
        own.set_timesteps(steps)
        kept = {int(time) for time in self.task.times}
        if 0 in kept:
            raise DataError("the lowest noise level is the clean picture itself; ask for levels that have noise")
        between = {round(float(time)) for time in own.timesteps} | kept
        # Time 0 stands for the picture itself: what lies below the first time (DDIM's final alpha) is next to it.
        return [0, *sorted(time for time in between if 0 < time <= max(kept))]
