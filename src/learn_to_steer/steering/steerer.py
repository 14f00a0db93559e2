"""``Steerer``: an objective and its settings; ``on(pipe)`` puts it on a user's pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learn_to_steer.classifier import load
from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import Family, find
from learn_to_steer.objectives._protocol import Objective
from learn_to_steer.objectives.learned import Learned
from learn_to_steer.steering.checks import check_pipeline, check_update, refuse_wrapped
from learn_to_steer.steering.config import SteeringConfig, profile
from learn_to_steer.steering.eager import eager
from learn_to_steer.steering.refine import Refiner, Sample
from learn_to_steer.steering.report import ImageReport, SteeringReport
from learn_to_steer.steering.request import Asked, read
from learn_to_steer.steering.session import Session
from learn_to_steer.tap import Tap

log = logging.getLogger(__name__)


class Steerer:
    """Steers pipelines towards the relations in their prompts.

    ::

        steered = Steerer.from_pretrained("path/to/classifier").on(pipe)
        out = steered("a dog to the right of a teddy bear", num_images_per_prompt=4)
        out.images, out.steering
    """

    def __init__(self, objective: Objective, config: SteeringConfig | None = None) -> None:
        self.objective, self._given = objective, config is not None
        self.config = config or profile("default", schedule=objective.schedule)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, config: SteeringConfig | None = None, revision: str | None = None
    ) -> Steerer:
        """The learned objective of a classifier folder or hub id; DataError when there is none."""
        return cls(Learned(load(source, revision)), config)

    def on(self, pipe: Any) -> SteeredPipeline:
        """A callable that runs ``pipe``, steered.

        Raises MismatchError when the classifier was made for another model, UnsupportedError when the objective
        cannot work with this one.
        """
        refuse_wrapped(pipe)
        with eager(pipe):
            family = find(pipe)
            layout = family.layout(getattr(pipe, family.denoiser))
            usual = family.unnamed(pipe, "")
        self.objective.check(layout)
        config = self.config if self._given else self.config.changed(**usual.steering)
        if config.rate is None:
            config = config.changed(rate=usual.rate)
        check_update(pipe, config)
        return SteeredPipeline(pipe, family, self.objective, config)


class SteeredPipeline:
    """Call it as you would call the pipeline; see ``__call__`` for what steering adds."""

    def __init__(self, pipe: Any, family: Family, objective: Objective, config: SteeringConfig) -> None:
        self.pipe, self.family, self.objective, self.config = pipe, family, objective, config

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        relations: Sequence[Asked] | Sequence[Sequence[Asked]] | None = None,
        columns: Sequence[Mapping[str, Sequence[int]]] | None = None,
        strict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run the pipeline on ``prompt`` (one or a list) and return its own output, plus ``.steering``.

        ``relations`` override what the prompts say: a list for one prompt, a list of lists for several;
        each a ``Relation``, ``"dog | left of | cat"`` or a triple. With ``prompt_embeds`` instead of text,
        give ``relations`` and, per prompt, ``columns``: the text columns of each object's name.
        Without any relation an image is made unsteered, with a warning; ``strict`` makes that a PromptError.
        With ``return_dict=False`` the report is appended to the tuple.
        """
        requests = read(self.pipe, self.family, self.objective, prompt, relations, columns, kwargs)
        for index, request in enumerate(requests):
            if not request.relations:
                what = f"prompt {index + 1} of {len(requests)} names no relation that can be steered"
                if strict:
                    raise PromptError(f"{what}; give relations=[...] or drop strict")
                log.warning("%s: it is made unsteered", what)
        copies = int(kwargs.get("num_images_per_prompt") or 1)
        samples = [
            Sample(request.pairs, request.columns, ImageReport(request.prompt, list(request.relations)), request.words)
            for request in requests
            for _ in range(copies)
        ]
        report = SteeringReport([s.report for s in samples], asdict(self.config))
        if prompt is not None:
            kwargs["prompt"] = prompt
        if not any(request.relations for request in requests):
            return _with_report(self.pipe(**kwargs), report)
        check_pipeline(self.pipe, self.family)
        with eager(self.pipe):
            denoiser = getattr(self.pipe, self.family.denoiser)
            tap = Tap(self.family.points(denoiser), self.family.attention(denoiser), self.objective.spec)
            refiner = Refiner(self.family, denoiser, self.objective, tap, self.config, samples)
            session = Session(self.pipe, self.family, refiner)
            with session.installed():
                output = self.pipe(**kwargs)
        report.seconds = session.seconds
        self._note_untouched(samples)
        return _with_report(output, report)

    def _note_untouched(self, samples: Sequence[Sample]) -> None:
        """Say so when no denoising step fell into the steered window (img2img of little strength)."""
        untouched = [s.report for s in samples if s.pairs and not s.report.steps]
        for report in untouched:
            report.note = f"no denoising step fell into the steered window (first {self.config.window:.0%}); unsteered"
        if untouched:
            log.warning("%d of %d images: %s", len(untouched), len(samples), untouched[0].note)


def _with_report(output: Any, report: SteeringReport) -> Any:
    if isinstance(output, tuple):
        return (*output, report)
    try:
        output.steering = report
    except AttributeError as error:
        raise UnsupportedError(
            f"the pipeline returned a {type(output).__name__}, which cannot carry a report"
        ) from error
    return output
