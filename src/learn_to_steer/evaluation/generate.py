"""Pictures whose noise depends on seed, prompt and index only, whatever batch they are made in."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from learn_to_steer.evaluation.model import Model
from learn_to_steer.prompts import Relation
from learn_to_steer.steering import ImageReport


@dataclass(frozen=True)
class Job:
    """One picture to make: the ``index``-th of ``prompt``, whose relations are known (and may be none)."""

    prompt: str
    relations: tuple[Relation, ...]
    index: int


@dataclass(frozen=True)
class Picture:
    """A picture, what steering did to it (None: it was not steered), and its share of the call's seconds."""

    image: Image
    report: ImageReport | None
    seconds: float


def generator(seed: int, prompt: str, index: int) -> torch.Generator:
    """The random numbers of one image; on the CPU, so that they are the same on every device."""
    digest = hashlib.sha256(f"{seed}\n{index}\n{prompt}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(
    model: Model,
    jobs: Sequence[Job],
    seed: int,
    *,
    steer: bool,
    on_step: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
) -> list[Picture]:
    """Make all ``jobs`` in one pipeline call, in order, steered or not.

    ``on_step`` is the pipeline's ``callback_on_step_end``. Raises PromptError for a relation that the
    classifier cannot ask for or a word that the model does not read.
    """
    arguments: dict[str, Any] = model.sampling | {
        "prompt": [job.prompt for job in jobs],
        "generator": [generator(seed, job.prompt, job.index) for job in jobs],
    }
    if on_step is not None:
        arguments["callback_on_step_end"] = on_step
    began = time.monotonic()
    reports: list[ImageReport | None] = [None] * len(jobs)
    if steer and model.steered is not None and any(job.relations for job in jobs):
        output = model.steered(relations=[list(job.relations) for job in jobs], **arguments)
        reports = list(output.steering.images)
    else:
        output = model.pipe(**arguments)
    seconds = (time.monotonic() - began) / len(jobs)
    return [Picture(image, report, seconds) for image, report in zip(output.images, reports, strict=True)]
