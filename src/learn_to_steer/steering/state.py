"""What a steered pipeline call keeps, and what it keeps for one denoising step. Data alone; ``loop`` works on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from learn_to_steer.families import Call
from learn_to_steer.losses.base import LossOutput, StepInfo
from learn_to_steer.steering.report import ImageReport, StepReport


@dataclass
class CallState:
    """What changes during one pipeline call. Made for the call and dropped after it.

    Attributes:
        reports: One per image, completed as the call goes on.
        iterations: Iterations made so far, per image.
        loss_memory: Per image index, the ``memory`` that the loss last returned.
        seconds: Time spent on steering.
        step: Index of the current denoising step; -1 before the first.
        step_is_new: Whether the next denoiser call begins a new denoising step.
        failures: Per image index, the gradients that were not finite.
        input_scale: The denoiser's input divided by the scheduler's latents, in the current step.
        moved_rows: Indices of the images that were moved in the current step.
        moved_latents: Their latents as the denoiser is fed them; None when no image was moved.
        moves: What was added to them, if the denoiser is fed fewer digits than fp32; the pipeline may keep more.
        prediction_offset: What is added to the denoiser's prediction in the current step, if anything.
        satisfied: Indices of the images that were satisfied when ``SteeringLoop.checking`` last saw them.
    """

    reports: list[ImageReport]
    iterations: list[int]
    loss_memory: dict[int, Any] = field(default_factory=dict)
    seconds: float = 0.0
    step: int = -1
    step_is_new: bool = True
    failures: Counter[int] = field(default_factory=Counter)
    input_scale: float = 1.0
    moved_rows: Int[Tensor, " moved"] = field(default_factory=torch.LongTensor)
    moved_latents: Float[Tensor, "moved *latents"] | None = None
    moves: Float[Tensor, "moved *latents"] | None = None
    prediction_offset: Float[Tensor, "images *latents"] | None = None
    satisfied: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class DenoisingStep:
    """What is fixed during one denoising step.

    Attributes:
        call: The denoiser call of this step, with the conditional rows of all images.
        info: Noise level and index of the step.
    """

    call: Call
    info: StepInfo


@dataclass
class ImageState:
    """One image during the iterations of one denoising step.

    Attributes:
        index: The image's index in the call.
        latents: Its latents as the denoiser is fed them, but in fp32.
        step_size: Latent units per unit of the direction; every backoff halves it.
        loss_scale: Factor of the loss while its gradient is computed; lowered when that overflows.
        refinements_left: Refinement iterations that may still be made before the regular ones.
        refine_until: The probability that ends the refinement.
        report: The user's report on this step.
        last_good: The latest latents that had a finite gradient, and the direction taken from there.
        regular: Number of regular iterations made.
        failures: Number of backoffs in this step.
    """

    index: int
    latents: Float[Tensor, "*latents"]
    step_size: float
    loss_scale: float
    refinements_left: int
    refine_until: float
    report: StepReport
    last_good: tuple[Float[Tensor, "*latents"], Float[Tensor, "*latents"]]
    regular: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Loss and gradient of some images at their current latents; entries are in the images' order.

    Attributes:
        output: What the loss returned.
        refining: Per image, whether it is in refinement.
        unsatisfied: Per image, whether it has to be moved.
        gradient: Of each image's loss with respect to its latents; zero where the image is satisfied.
    """

    output: LossOutput
    refining: list[bool]
    unsatisfied: list[bool]
    gradient: Float[Tensor, "images *latents"]
