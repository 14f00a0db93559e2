"""No inversion: random noise is added to the clean latents. One forward pass per noise level.

Source:
    RF-inversion (arXiv 2410.10792) with the settings of the Learn-to-Steer authors for FLUX, gamma = eta = 1: the
    network cancels out of both directions, and adding noise is what remains. The authors' quality check then compares
    an image with its own decoding, so it always passes. Here the quality is the error of the network's prediction of
    the clean latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.inversion.base import InversionQuality, InversionTask, Observe

WORST = 0.75  # of the error that a prediction of zeros has at the same level


def invert(task: InversionTask, observe: Observe, *, limit: float | None = None) -> InversionQuality:
    """Add random noise at every level and observe; see ``inversion.Inversion``.

    The quality is the relative error of the predicted clean latents at the least noisy level. At noisier levels no
    network can predict the image.

    Args:
        task: The samples.
        observe: Called once per noise level.
        limit: The largest error that passes; None: three quarters of the error of a network that predicts zeros.

    Returns:
        The relative error of every sample.
    """
    return add_noise_and_observe(task, observe, task.noise, limit)


def add_noise_and_observe(
    task: InversionTask,
    observe: Observe,
    noise: Callable[[int], Float[Tensor, "batch ..."]],
    limit: float | None,
    strength: float = 1.0,
) -> InversionQuality:
    """Do the same as ``invert``, with given noise.

    Args:
        task: The samples.
        observe: Called once per noise level.
        noise: Returns the noise for the index of a level.
        limit: The largest error that passes; None: as in ``invert``.
        strength: A factor on all noise levels, in (0, 1].

    Returns:
        The relative error of every sample.
    """
    family, pipe = task.recording.family, task.pipe
    error = baseline = torch.full((len(task.clean),), float("nan"))
    for level, time in enumerate(task.times):
        noisy_time = time
        if strength != 1.0:
            (noisy_time,) = family.times(pipe, torch.tensor([family.noise_level(pipe, time)]) * strength)
        noisy = family.add_noise(pipe, task.clean, noise(level), noisy_time)
        prediction = observe(level, noisy, time)
        if level == len(task.times) - 1:
            error, baseline = (
                _relative_error(family.predict_clean(pipe, noisy, output, time), task.clean)
                for output in (prediction, torch.zeros_like(prediction))
            )
    worst = WORST * baseline if limit is None else torch.full_like(error, limit)
    return InversionQuality(error, error <= worst, "relative error of the clean estimate")


def _relative_error(predicted: Tensor, clean: Tensor) -> Float[Tensor, " batch"]:
    error: Tensor = (predicted - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)
    return error.cpu()
