"""Closed-form noising: fresh noise is added to the clean latents; one forward a level and no more.

Source:
    RF-inversion (arXiv 2410.10792) with the authors' settings for FLUX, gamma = eta = 1: the network cancels out of
    both directions and leaves this. Their quality check then compares an image with its own decoding, which says
    nothing about the inversion. Here it is the error of the network's prediction of the clean latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.inversion.base import InversionQuality, InversionTask, Observe

WORST = 0.75  # of the error that a prediction of zeros has at that level


def invert(task: InversionTask, observe: Observe, *, limit: float | None = None) -> InversionQuality:
    """Add fresh noise at every level and observe; see ``inversion.Inversion``.

    The quality is the error of the predicted clean latents relative to the clean latents, at the least noisy level: at
    noisier ones no network can know the image.

    Args:
        task: The samples.
        observe: Called once for every level.
        limit: The largest error that is good enough; None: three quarters of the error of a network that predicts
            zeros at that level.
    """
    return add_noise_and_observe(task, observe, task.noise, limit)


def add_noise_and_observe(
    task: InversionTask,
    observe: Observe,
    noise: Callable[[int], Float[Tensor, "batch ..."]],
    limit: float | None,
    strength: float = 1.0,
) -> InversionQuality:
    """Do as ``invert`` with noise of the caller's.

    Args:
        task: The samples.
        observe: Called once for every level.
        noise: Returns the noise of a level by its index.
        limit: The largest error that is good enough; None: as in ``invert``.
        strength: Factor of every noise level.
    """
    family, pipe = task.recording.family, task.pipe
    error = baseline = torch.full((len(task.clean),), float("nan"))
    for level, time in enumerate(task.times):
        noisy = family.add_noise(pipe, task.clean, noise(level), time if strength == 1.0 else time * strength)
        prediction = observe(level, noisy, time)
        if level == len(task.times) - 1:
            error, baseline = (
                _relative_error(family.predict_clean(pipe, noisy, guess, time), task.clean)
                for guess in (prediction, torch.zeros_like(prediction))
            )
    worst = WORST * baseline if limit is None else torch.full_like(error, limit)
    return InversionQuality(error, error <= worst, "relative error of the clean estimate")


def _relative_error(predicted: Tensor, clean: Tensor) -> Float[Tensor, " batch"]:
    error: Tensor = (predicted - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)
    return error.cpu()
