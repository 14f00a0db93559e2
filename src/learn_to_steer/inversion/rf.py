"""RF-inversion: a controlled flow from the image to noise, and a controlled flow back.

``gamma`` pulls the flow to noise towards random noise, and ``eta`` pulls the flow back towards the image. At 0 each
follows the network alone. At gamma = eta = 1, the authors' setting and the default, the network cancels out of both
directions, and the latents have a closed form: clean latents with noise added, at one forward pass per noise level.

Source:
    RF-inversion (arXiv 2410.10792), which the Learn-to-Steer paper uses for FLUX. The authors' step
    sizes leave a share of the image in the noise; by default they do not here, and ``mode="compat"`` reproduces it.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor

from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.inversion.base import InversionQuality, InversionTask, Observe, reconstruction_quality
from learn_to_steer.inversion.noise import add_noise_and_observe

STEPS = 50
LEAST = 20.0  # dB


def invert(
    task: InversionTask,
    observe: Observe,
    *,
    limit: float | None = None,
    gamma: float = 1.0,
    eta: float = 1.0,
    mode: Literal["clean", "compat"] = "clean",
    steps: int | None = None,
) -> InversionQuality:
    """Invert, and observe every level while sampling back; see ``inversion.Inversion``.

    The quality is the PSNR in dB of the reconstructed image. In the closed form the reconstruction is always exact, so
    the quality is the relative error of the predicted clean latents, as in ``noise``.

    Args:
        task: The samples.
        observe: Called once per noise level.
        limit: The threshold of the quality check; None: 20 dB or, in the closed form, as in ``noise``.
        gamma: Strength of the control on the way to noise, in [0, 1].
        eta: Strength of the control on the way back, in [0, 1].
        mode: "clean", or "compat" to reproduce the authors' noise levels; this needs gamma = eta = 1.
        steps: The number of steps of each direction; None: 50 or, for "compat", the default of the model.

    Returns:
        The quality of every sample.

    Raises:
        UnsupportedError: The model is not a rectified flow.
        DataError: ``gamma`` or ``eta`` is outside [0, 1] or does not fit ``mode``, or a noise level is 0.
    """
    _require_flow(task)
    if not (0 <= gamma <= 1 and 0 <= eta <= 1) or mode not in ("clean", "compat"):
        raise DataError(f"gamma and eta lie in [0, 1], and mode is clean or compat; got {gamma}, {eta} and {mode!r}")
    noise = task.noise(0)  # one noise per sample, the same at all levels
    if gamma == eta == 1:
        count = steps or task.recording.family.default_variant(task.pipe, "").steps
        strength = 1 - residual(task, count) if mode == "compat" else 1.0
        return add_noise_and_observe(task, observe, lambda _: noise, limit, strength)
    if mode == "compat":
        raise DataError("mode 'compat' needs gamma = eta = 1, the authors' setting")
    levels = _grid(task, steps or STEPS)
    latents = _up(task, noise, levels, gamma)
    observed = _observed(task)
    for level, after in pairwise([*levels[::-1], 0.0]):
        kept = [n for n, noise_level in enumerate(observed) if abs(noise_level - level) < 1e-6]
        velocity = observe(kept[0], latents, task.times[kept[0]]) if kept else _velocity(task, latents, level)
        latents = latents + (after - level) * (velocity + eta * ((latents - task.clean) / level - velocity))
    return reconstruction_quality(task, latents, LEAST if limit is None else limit)


def residual(task: InversionTask, steps: int) -> float:
    """Return the share of the image that the authors' inversion leaves in the noise.

    With sigmas s_0 = 1 ... s_n = 0 it is the product of 1 - (s_i - s_{i+1}) / (1 - i / (n + 1)) over all steps: 0.1128
    for four steps without a shift.

    Args:
        task: A task whose pipeline has the scheduler.
        steps: The number of steps, n.
    """
    scheduler = type(task.pipe.scheduler).from_config(task.pipe.scheduler.config)
    base = torch.linspace(1, 1 / steps, steps).tolist()
    shifted = {"mu": 0.63} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(sigmas=base, **shifted)
    sigmas = scheduler.sigmas.tolist()
    return float(prod(1 - (s - after) / (1 - i / (steps + 1)) for i, (s, after) in enumerate(pairwise(sigmas))))


def _up(task: InversionTask, noise: Tensor, levels: list[float], gamma: float) -> Tensor:
    """The latents at the noisiest level: Euler steps from the image, pulled towards ``noise``."""
    latents = task.clean
    for level, after in pairwise([0.0, *levels]):
        if gamma < 1:
            velocity = _velocity(task, latents, level)
            controlled = velocity + gamma * ((noise - latents) / (1 - level) - velocity)
        else:
            controlled = (noise - latents) / (1 - level)
        latents = latents + (after - level) * controlled
    return latents


def _grid(task: InversionTask, steps: int) -> list[float]:
    """The levels of the steps and the levels to observe, least noisy first, up to the noisiest to observe."""
    kept = _observed(task)
    if min(kept) <= 0:
        raise DataError("the lowest noise level is 0, the clean image; give levels above 0")
    between = [n / steps for n in range(1, steps)]
    steps_between = [level for level in between if level < max(kept) and all(abs(level - k) > 1e-6 for k in kept)]
    return sorted([*steps_between, *kept])


def _observed(task: InversionTask) -> list[float]:
    """The noise levels to observe."""
    return [task.recording.family.noise_level(task.pipe, time) for time in task.times]


def _velocity(task: InversionTask, latents: Tensor, level: float) -> Tensor:
    """What the network predicts at a noise level."""
    (time,) = task.recording.family.times(task.pipe, torch.tensor([level]))
    return task.recording(latents, time).float()


def _require_flow(task: InversionTask) -> None:
    """Raise UnsupportedError unless, at level 1, the clean latents are the latents minus the prediction."""
    ones = torch.ones_like(task.clean[:1])
    family = task.recording.family
    (time,) = family.times(task.pipe, torch.ones(1))
    clean = family.predict_clean(task.pipe, ones, 2 * ones, time)
    if not torch.equal(clean, -ones):
        raise UnsupportedError(
            f"{family.name} models are not rectified flows; use the inversion 'noise' or 'fixed-point'"
        )
