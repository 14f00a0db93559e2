"""How a frozen pipeline is steered while it runs. Read it in this order:

``steerer``: a loss and its settings, put on a user's pipeline.
``pipeline``: one steered call. It runs on a view of the pipeline, with a denoiser and a scheduler of its own.
``loop``: inside a denoising step, attention maps -> loss -> gradient -> moved latents, until the stop rule holds.
``losses.learned``: the loss, a relation classifier that reads the maps.

The other modules: ``inputs`` (relations and their text columns), ``config`` (every setting), ``report`` (what was
done), ``tries`` and ``verifiers`` (what is wrong is drawn again), ``compatibility`` (what is refused, and what keeps
calls apart), ``noise_search``, ``memory`` and ``probe``.
"""

from learn_to_steer.steering.config import SteeringConfig, profile
from learn_to_steer.steering.pipeline import SteeredPipeline
from learn_to_steer.steering.report import ImageReport, SteeringReport, StepReport
from learn_to_steer.steering.steerer import Steerer
from learn_to_steer.steering.verifiers import DetectorVerifier, Verdict, Verifier

__all__ = [
    "DetectorVerifier",
    "ImageReport",
    "SteeredPipeline",
    "Steerer",
    "SteeringConfig",
    "SteeringReport",
    "StepReport",
    "Verdict",
    "Verifier",
    "profile",
]
