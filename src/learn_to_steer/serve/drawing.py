"""Draws pictures in batches of one shape. It runs in the child process that holds the model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from learn_to_steer.errors import SteerError, UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.image_files import png_bytes
from learn_to_steer.loading import load_pipeline
from learn_to_steer.model_names import named_variant
from learn_to_steer.placement import resolve_device
from learn_to_steer.plain_text import one_line
from learn_to_steer.prompts import analyse
from learn_to_steer.serve.fixed_shape import FixedShapeLoop, PaddedPipeline
from learn_to_steer.serve.jobs import PNG_KEY, Failed, Job, Picture, StepSeen
from learn_to_steer.serve.page_watch import Watch, details
from learn_to_steer.steering import SteeredPipeline, Steerer
from learn_to_steer.steering.inputs import select_relations
from learn_to_steer.steering.tries import UnsteeredPipeline, draw_best

PROBE_STEPS = 2
log = logging.getLogger(__name__)


class CancelledError(Exception):
    """Nobody waits for the pictures of this batch any more."""


@dataclass(frozen=True)
class ModelFacts:
    """What the server has to know about the model.

    Attributes:
        resolution: Default height and width in pixels.
        grid: Height and width are multiples of it.
        steered: Whether there is a classifier.
        steps: Number of denoising steps.
        threshold: The probability at which steering stops by default.
        objects: Names of objects that it draws; empty where that is not known.
        batch_invariant: Whether a picture's bits do not depend on what else is drawn in its batch.
    """

    resolution: int
    grid: int
    steered: bool
    steps: int = 0
    threshold: float = 0.95
    objects: tuple[str, ...] = ()
    batch_invariant: bool = True


class Painter:
    """A model that draws batches of a fixed number of rows.

    Args:
        model: Name, folder or hub id of the model.
        classifier: That of its classifier. None: the model's own, if it has one.
        device: Torch device, or "auto".
        rows: Pictures of a batch.

    Raises:
        SteerError: The model or the classifier cannot be loaded.
    """

    def __init__(self, model: str, classifier: str | None, device: str, rows: int) -> None:
        self.model, self.rows = model, rows
        self.device = resolve_device(device)
        self.pipe = load_pipeline(model, self.device)
        variant = named_variant(model)
        source = classifier or (model if variant and variant.classifier else None)
        self.steerer = Steerer.from_pretrained(source) if source else None
        if self.steerer:
            self.steerer.on(self.pipe)  # for its errors

    def facts(self) -> ModelFacts:
        """Return what the server has to know."""
        resolution = int(self.pipe.steering_defaults["height"])
        steps = int(self.pipe.steering_defaults["num_inference_steps"])
        threshold = self.steerer.on(self.pipe).config.threshold if self.steerer else 0.95
        variant = named_variant(self.model)
        objects = tuple(variant.objects()) if variant and variant.objects else ()
        grid = find(self.pipe).pixel_multiple(self.pipe)
        steered, invariant = self.steerer is not None, self._is_batch_invariant(resolution)
        return ModelFacts(resolution, grid, steered, steps, threshold, objects, invariant)

    def draw(
        self, jobs: Sequence[Job], cancelled: Callable[[], bool], tell: Callable[[StepSeen], None] = lambda step: None
    ) -> list[Picture | Failed]:
        """Draw jobs; one that fails does not harm the others.

        Args:
            jobs: At most ``rows`` jobs, which have the same ``shape``.
            cancelled: Asked after every denoising step; True ends the batch.
            tell: Called with every step of a watched job.

        Returns:
            For each job a picture, or why there is none.
        """
        answers: dict[int, Picture | Failed] = {}
        batches: dict[Any, dict[int, Job]] = {}
        for number, job in enumerate(jobs):
            try:
                kept = self._steerable(job)
            except SteerError as error:
                answers[number] = Failed(400, one_line(str(error)))
            else:
                batches.setdefault(kept.shape, {})[number] = kept
        for batch in batches.values():
            answers |= zip(batch, self._draw_all(list(batch.values()), cancelled, tell), strict=True)
        return [answers[number] for number in range(len(jobs))]

    def _draw_all(
        self, jobs: Sequence[Job], cancelled: Callable[[], bool], tell: Callable[[StepSeen], None]
    ) -> list[Picture | Failed]:
        """Draw jobs in one batch, or each in its own if that fails."""
        try:
            return list(self._draw(jobs, cancelled, tell))
        except CancelledError:
            return [Failed(499, "cancelled") for _ in jobs]
        except SteerError as error:
            failed = Failed(400, one_line(str(error)))
        except Exception:  # a model can fail in any way, and the next request must be answered
            log.exception("a batch of %d failed", len(jobs))
            failed = Failed(500, "the picture could not be drawn; the server's log says why")
        if len(jobs) == 1:
            return [failed]
        return [self._draw_all([job], cancelled, tell)[0] for job in jobs]

    def _draw(
        self, jobs: Sequence[Job], cancelled: Callable[[], bool], tell: Callable[[StepSeen], None]
    ) -> list[Picture]:
        began, first = time.monotonic(), jobs[0]

        def on_step_end(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if cancelled():
                raise CancelledError
            watch.step_ends(step)
            return values

        arguments = {
            **self.pipe.steering_defaults,
            "prompt": [job.prompt for job in jobs],
            "relations": [list(job.relations) for job in jobs],
            "generator": [torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            "width": first.width,
            "height": first.height,
            "callback_on_step_end": on_step_end,
        }
        if first.steps is not None:
            arguments["num_inference_steps"] = first.steps
        pipeline = PaddedPipeline(self._pipeline(first), self.rows)
        watch = Watch(self.pipe, arguments if first.watched else None, self.rows, tell)
        # Without a relation nothing can be wrong with a picture.
        judged = bool(first.relations) and (first.tries > 1 or (first.watched and self.steerer is not None))
        with watch:
            output = draw_best(pipeline, arguments, first.tries) if judged else pipeline(**arguments)
        pictures = []
        for job, image, report in zip(jobs, output.images, output.steering.images, strict=True):
            steering = {
                "relations": [one.as_list() for one in report.relations],
                "passes": report.passes,
                "probability": list(report.probability),
                "satisfied": report.satisfied,
                "seed": job.seed,
            }
            settings = {"model": self.model, **job.settings(), "steering": steering}
            more = details(report, pipeline.config, output.steering.seconds, began) if job.watched else {}
            pictures.append(Picture(png_bytes(image, {PNG_KEY: json.dumps(settings)}), steering, more))
        return pictures

    def _pipeline(self, job: Job) -> Any:
        """The callable that draws a job and those of the same shape."""
        if not job.relations or not (job.steer or (job.watched and self.steerer)):
            return UnsteeredPipeline(self.pipe)
        steered = self._steered()
        if job.threshold is not None:
            steered.config = steered.config.changed(threshold=job.threshold)
        if job.strength != 1 and steered.config.step_size is not None:
            steered.config = steered.config.changed(step_size=job.strength * steered.config.step_size)
        if not job.steer:  # the classifier looks, and nothing is moved: the pictures of the pipeline itself
            steered.config = steered.config.changed(max_iterations=0, search=None, check_while_sampling=True)
        return steered

    def _steered(self) -> SteeredPipeline:
        if self.steerer is None:
            raise UnsupportedError(f"{self.model} has no classifier here; send steer: false, or serve it with one")
        steered = self.steerer.on(self.pipe)
        steered.loop_type = FixedShapeLoop
        return steered

    def _steerable(self, job: Job) -> Job:
        """A job without the relations that cannot be steered; SteerError if a client sent one of these."""
        if not job.relations or not (job.steer or (job.watched and self.steerer)):
            return job
        steered = self._steered()
        kept, left_out = select_relations(
            self.pipe, steered.family, steered.loss, job.prompt, job.relations, self.pipe.steering_defaults
        )
        if left_out and not job.found:
            raise UnsupportedError(left_out[0].reason)
        return replace(job, relations=kept)

    def _is_batch_invariant(self, side: int) -> bool:
        """Whether a picture comes out the same in two places of two batches, on a device that always adds alike."""
        if self.rows == 1:
            return True
        if self.device != "cpu":
            return False
        texts = ("a dog to the left of a cat", "a pizza above a robot", "a turtle is on the right of a big bird")
        asked: dict[str, Any] = {"steer": self.steerer is not None, "threshold": 0.5, "steps": PROBE_STEPS}
        probe, *others = (
            Job(text, number, side, side, analyse(text).relations, **asked) for number, text in enumerate(texts)
        )
        alone, last = [probe], [*(others * self.rows)[: self.rows - 1], probe]
        first, second = (self.draw(jobs, lambda: False)[-1] for jobs in (alone, last))
        return isinstance(first, Picture) and first == second
