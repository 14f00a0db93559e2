"""Read this first: how a frozen pipeline is steered while it runs.

``Steerer.on(pipe)`` gives a callable that takes what the pipeline takes. For the length of one call it hooks
the denoiser and the scheduler (``session``), moves the latents before every early step until the objective is
satisfied (``refine``), and then restores everything. ``config`` holds the profiles, ``report`` what was done.
"""

from learn_to_steer.steering.config import SteeringConfig, profile
from learn_to_steer.steering.report import ImageReport, SteeringReport, StepReport
from learn_to_steer.steering.steerer import SteeredPipeline, Steerer

__all__ = [
    "ImageReport",
    "SteeredPipeline",
    "Steerer",
    "SteeringConfig",
    "SteeringReport",
    "StepReport",
    "profile",
]
