"""Generate images whose noise depends on seed, prompt and index only, whatever batch they are in."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from PIL.Image import Image

from learn_to_steer.errors import PromptError
from learn_to_steer.evaluation.model import Model
from learn_to_steer.prompts import Relation
from learn_to_steer.steering import ImageReport, Verifier
from learn_to_steer.steering.inputs import select_relations, warn_of_left_out
from learn_to_steer.steering.report import LeftOut
from learn_to_steer.steering.tries import UnsteeredPipeline, draw_best


@dataclass(frozen=True)
class Job:
    """One image to generate.

    Attributes:
        prompt: The prompt.
        relations: The relations to steer to; may be empty.
        index: Number of the image among those of the same prompt.
        left_out: Relations of the prompt that cannot be steered.
    """

    prompt: str
    relations: tuple[Relation, ...]
    index: int
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class GeneratedImage:
    """One generated image.

    Attributes:
        image: The image.
        report: The report of steering; None if the image was not steered, and nothing looked at it.
        seconds: Time of the pipeline call with all its tries and looks, divided by its number of images.
    """

    image: Image
    report: ImageReport | None
    seconds: float


def noise_generator(seed: int, prompt: str, index: int) -> torch.Generator:
    """Make the random generator of one image. It is on the CPU, so the noise is the same on every device."""
    digest = hashlib.sha256(f"{seed}\n{index}\n{prompt}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def steerable(
    model: Model, prompt: str, relations: Sequence[Relation], *, found: bool
) -> tuple[tuple[Relation, ...], tuple[LeftOut, ...]]:
    """Divide the relations of a prompt into those that the model can be steered to and the others, before it is drawn.

    Args:
        model: The pipeline with its sampling and steering.
        prompt: The prompt.
        relations: Its relations, with spans.
        found: Whether they were found in the prompt. Relations that somebody gave must all be steerable.

    Returns:
        Both groups. Of a model without steering, all relations belong to the first.

    Raises:
        PromptError: A relation that somebody gave cannot be steered.
    """
    if model.steered is None:
        return tuple(relations), ()
    steered = model.steered
    kept, left_out = select_relations(steered.pipe, steered.family, steered.loss, prompt, relations, model.sampling)
    if left_out and not found:
        raise PromptError(left_out[0].reason)
    warn_of_left_out(left_out)
    return kept, left_out


def takes_callback(pipe: Any) -> bool:
    """Return whether a pipeline calls ``callback_on_step_end``; PixArt's ignore it, as any argument they do not know.

    Args:
        pipe: A diffusers pipeline.
    """
    return "callback_on_step_end" in signature(type(pipe).__call__).parameters


def draw(
    model: Model,
    jobs: Sequence[Job],
    seed: int,
    *,
    steer: bool,
    on_step: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
    tries: int = 1,
    verifier: str | Verifier | None = None,
) -> list[GeneratedImage]:
    """Generate images in one pipeline call, and those that are wrong again where ``tries`` allows.

    Args:
        model: The pipeline with its sampling and steering.
        jobs: The images to generate.
        seed: Seed of the noise of all images.
        steer: Whether to steer. Has no effect on a model without steering and on jobs without relations.
        on_step: The pipeline's ``callback_on_step_end``; left out where it takes none (``takes_callback``).
        tries: How often an image is drawn at most; see ``steering.tries.draw_best``. The noise of a try depends on
            seed, prompt, index and the number of the try only.
        verifier: What looks at finished images, as there. Images that are not steered need one.

    Returns:
        One image per job, in order.

    Raises:
        PromptError: The loss does not know a predicate, or an object lies beyond the text that the model reads; see
            ``steerable``.
        UnsupportedError: There are several tries, and nothing judges the images.
    """
    arguments: dict[str, Any] = model.sampling | {
        "prompt": [job.prompt for job in jobs],
        "generator": [noise_generator(seed, job.prompt, job.index) for job in jobs],
    }
    if on_step is not None and takes_callback(model.pipe):
        arguments["callback_on_step_end"] = on_step
    began = time.monotonic()
    reports: list[ImageReport | None] = [None] * len(jobs)
    relations = [list(job.relations) for job in jobs]
    steered = model.steered if steer and any(relations) else None
    if steered is None and (not any(relations) or (tries == 1 and verifier is None)):
        output = model.pipe(**arguments)
    else:
        if steered is None:
            output = draw_best(UnsteeredPipeline(model.pipe), {"relations": relations} | arguments, tries, verifier)
        else:
            output = steered(relations=relations, tries=tries, verifier=verifier, **arguments)
        reports = [
            replace(report, left_out=list(job.left_out))
            for report, job in zip(output.steering.images, jobs, strict=True)
        ]
    seconds = (time.monotonic() - began) / len(jobs)
    return [GeneratedImage(image, report, seconds) for image, report in zip(output.images, reports, strict=True)]
