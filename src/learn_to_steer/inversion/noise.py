"""Closed-form noising: clean latents and fresh noise, mixed to the level; one forward a level and no more.

*Source:* the authors' inversion for FLUX, whose network terms cancel and leave this (official_implementation, 7.1).
*Differs:* the authors' filter then compares a picture with its own decoding, which says nothing about the inversion;
ours asks how far the network's guess of the clean latents is off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from learn_to_steer.inversion._protocol import Observe, Quality, Task

WORST = 0.75  # of the error that an answer of zeros has at that level: a network that knows nothing is at 1


def invert(task: Task, observe: Observe, *, limit: float | None = None) -> Quality:
    """Mix, observe, compare: quality is the error of the clean estimate over the size of the clean latents.

    It is taken at the cleanest kept level, where the picture is decided; at the noisier ones no network can know it.
    ``limit`` is the largest error that is good enough; by default three quarters of what a network that predicts zeros
    gets at that level.
    """
    return mix_and_ask(task, observe, task.noise, limit)


def mix_and_ask(
    task: Task, observe: Observe, noise: Callable[[int], Tensor], limit: float | None, strength: float = 1.0
) -> Quality:
    """``invert`` with the noise of every level as ``noise`` has it, mixed in at ``strength`` times its level."""
    family, pipe = task.recording.family, task.pipe
    error = nothing = torch.full((len(task.clean),), float("nan"))
    for level, time in enumerate(task.times):
        noisy = family.mix(pipe, task.clean, noise(level), time if strength == 1.0 else time * strength)
        prediction = observe(level, noisy, time)
        if level == len(task.times) - 1:
            error, nothing = (
                _relative(family.clean_estimate(pipe, noisy, answer, time) - task.clean, task.clean)
                for answer in (prediction, torch.zeros_like(prediction))
            )
    worst = WORST * nothing if limit is None else torch.full_like(error, limit)
    return Quality(error, error <= worst, "relative error of the clean estimate")


def _relative(off: Tensor, clean: Tensor) -> Tensor:
    """Norms of ``off`` over those of ``clean``, a row each."""
    share: Tensor = off.flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)
    return share.cpu()
