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

WORST = 1.0  # as far off as knowing nothing: the error of answering with zeros


def invert(task: Task, observe: Observe, *, limit: float | None = None) -> Quality:
    """Mix, observe, compare: quality is the error of the clean estimate over the size of the clean latents.

    It is taken at the cleanest kept level, where the picture is decided; at the noisier ones no network can know it.
    ``limit`` is the largest error that is good enough (default 1).
    """
    return mix_and_ask(task, observe, task.noise, limit)


def mix_and_ask(
    task: Task, observe: Observe, noise: Callable[[int], Tensor], limit: float | None, strength: float = 1.0
) -> Quality:
    """``invert`` with the noise of every level as ``noise`` has it, mixed in at ``strength`` times its level."""
    family, pipe = task.recording.family, task.pipe
    error: Tensor = torch.full((len(task.clean),), float("nan"))
    for level, time in enumerate(task.times):
        noisy = family.mix(pipe, task.clean, noise(level), time if strength == 1.0 else time * strength)
        prediction = observe(level, noisy, time)
        if level == len(task.times) - 1:
            off = family.clean_estimate(pipe, noisy, prediction, time) - task.clean
            error = (off.flatten(1).norm(dim=1) / task.clean.flatten(1).norm(dim=1)).cpu()
    return Quality(error, error <= (WORST if limit is None else limit), "relative error of the clean estimate")
