"""RF-inversion: a controlled flow from the picture to noise, and a controlled flow back past the kept levels.

``gamma`` pulls the way up towards the drawn noise, ``eta`` the way back towards the picture; at 0 each follows the
network alone. At gamma = eta = 1 (the authors' setting) the network cancels out of both and the latents have a closed
form: clean latents and noise, mixed. That is the default here, at one forward a kept level.

*Source:* RF-inversion (arXiv 2410.10792); the authors' use of it (official_implementation, 7.1). *Differs:* levels are
true noise levels in both directions; ``mode="compat"`` keeps the share of the picture that the authors' step sizes
leave in the noise.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor

from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.inversion._protocol import Observe, Quality, Task, regenerated
from learn_to_steer.inversion.noise import mix_and_ask

STEPS = 50
LEAST = 20.0  # dB


def invert(
    task: Task,
    observe: Observe,
    *,
    limit: float | None = None,
    gamma: float = 1.0,
    eta: float = 1.0,
    mode: Literal["clean", "compat"] = "clean",
    steps: int | None = None,
) -> Quality:
    """Invert and observe the kept levels; ``steps`` is the length of the schedule, for both directions.

    It is 50 by default and, for ``compat``, as many as models of this kind are sampled with, as the authors have it.

    Quality is the PSNR in dB of the picture that comes back (at least 20); in the closed form, where the picture
    comes back by construction, it is the error of the network's clean estimate as in ``noise``.
    Raises UnsupportedError for a model that is no rectified flow, DataError for settings outside [0, 1] or a mode
    that the controlled flow does not have.
    """
    _require_flow(task)
    if not (0 <= gamma <= 1 and 0 <= eta <= 1) or mode not in ("clean", "compat"):
        raise DataError(f"gamma and eta lie in [0, 1] and mode is clean or compat, got {gamma}, {eta} and {mode!r}")
    noise = task.noise(0)  # one noise for all levels of a sample
    if gamma == eta == 1:
        usual = steps or task.recording.family.unnamed(task.pipe, "").steps
        strength = 1 - residual(task, usual) if mode == "compat" else 1.0
        return mix_and_ask(task, observe, lambda _: noise, limit, strength)
    if mode == "compat":
        raise DataError("mode 'compat' is the authors' setting: it needs gamma = eta = 1")
    levels = _grid(task, steps or STEPS)
    latents = _up(task, noise, levels, gamma)
    for level, after in pairwise([*levels[::-1], 0.0]):
        kept = [n for n, time in enumerate(task.times) if abs(float(time) - level) < 1e-6]
        moment = torch.tensor(level)
        velocity = observe(kept[0], latents, task.times[kept[0]]) if kept else task.recording(latents, moment).float()
        latents = latents + (after - level) * (velocity + eta * ((latents - task.clean) / level - velocity))
    return regenerated(task, latents, LEAST if limit is None else limit)


def residual(task: Task, steps: int) -> float:
    """Share of the picture that the authors' inversion leaves in its noise; .1128 for four unshifted steps."""
    scheduler = type(task.pipe.scheduler).from_config(task.pipe.scheduler.config)
    base = torch.linspace(1, 1 / steps, steps).tolist()
    shifted = {"mu": 0.63} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(sigmas=base, **shifted)
    sigmas = scheduler.sigmas.tolist()
    return float(prod(1 - (s - after) / (1 - i / (steps + 1)) for i, (s, after) in enumerate(pairwise(sigmas))))


def _up(task: Task, noise: Tensor, levels: list[float], gamma: float) -> Tensor:
    """From the picture to the noisiest level, Euler steps of the flow drawn towards ``noise``."""
    latents = task.clean
    for level, after in pairwise([0.0, *levels]):
        if gamma < 1:
            velocity = task.recording(latents, torch.tensor(level)).float()
            drawn = velocity + gamma * ((noise - latents) / (1 - level) - velocity)
        else:
            drawn = (noise - latents) / (1 - level)
        latents = latents + (after - level) * drawn
    return latents


def _grid(task: Task, steps: int) -> list[float]:
    """Levels of the walk and the kept ones, cleanest first, up to the noisiest kept one."""
    kept = [float(time) for time in task.times]
    if min(kept) <= 0:
        raise DataError("the lowest noise level is the clean picture itself; ask for levels that have noise")
    between = [n / steps for n in range(1, steps)]
    apart = [level for level in between if level < max(kept) and all(abs(level - k) > 1e-6 for k in kept)]
    return sorted([*apart, *kept])


def _require_flow(task: Task) -> None:
    """A rectified flow predicts the velocity: at level 1 the clean estimate is the latents less the prediction."""
    ones = torch.ones_like(task.clean[:1])
    family = task.recording.family
    clean = family.clean_estimate(task.pipe, ones, 2 * ones, torch.ones(()))
    if not torch.equal(clean, -ones):
        raise UnsupportedError(
            f"{family.name} models are no rectified flows; use the inversion 'noise' or 'fixed-point'"
        )
