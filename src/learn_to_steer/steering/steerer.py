"""``Steerer``: an objective and its settings; ``on(pipe)`` puts it on a user's pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learn_to_steer import prompts as text
from learn_to_steer.classifier import load
from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import Family, find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.objectives._protocol import Objective, Pair
from learn_to_steer.objectives.learned import Learned
from learn_to_steer.prompts import Relation
from learn_to_steer.steering.config import SteeringConfig, profile
from learn_to_steer.steering.refine import Refiner, Sample
from learn_to_steer.steering.report import ImageReport, SteeringReport
from learn_to_steer.steering.session import Session, check_pipeline, refuse_wrapped
from learn_to_steer.tap import Tap

log = logging.getLogger(__name__)
Asked = Relation | str | Sequence[str]


class Steerer:
    """Steers pipelines towards the relations in their prompts.

    ::

        steered = Steerer.from_pretrained("path/to/classifier").on(pipe)
        out = steered("a dog to the right of a teddy bear", num_images_per_prompt=4)
        out.images, out.steering
    """

    def __init__(self, objective: Objective, config: SteeringConfig | None = None) -> None:
        self.objective = objective
        self.config = config or profile("default")

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: SteeringConfig | None = None) -> Steerer:
        """The learned objective of a classifier folder; DataError when there is none."""
        return cls(Learned(load(folder)), config)

    def on(self, pipe: Any) -> SteeredPipeline:
        """A callable that runs ``pipe``, steered; MismatchError when the classifier was made for another model."""
        refuse_wrapped(pipe)
        family = find(pipe)
        layout = family.layout(getattr(pipe, family.denoiser))
        self.objective.check(layout)
        return SteeredPipeline(pipe, family, self.objective, self.config)


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
        asked, where = self._asked(prompt, relations, columns, kwargs)
        for index, found in enumerate(asked):
            if not found:
                what = f"prompt {index + 1} of {len(asked)} names no relation that can be steered"
                if strict:
                    raise PromptError(f"{what}; give relations=[...] or drop strict")
                log.warning("%s: it is made unsteered", what)
        copies = int(kwargs.get("num_images_per_prompt") or 1)
        texts = [prompt] if isinstance(prompt, str) else list(prompt or [""] * len(asked))
        samples, spots = [], []
        for index, found in enumerate(asked):
            pairs, groups = self._pairs(found, where[index])
            for _ in range(copies):
                samples.append(Sample(pairs, ImageReport(texts[index], list(found))))
                spots.append(groups)
        report = SteeringReport([s.report for s in samples], asdict(self.config))
        if prompt is not None:
            kwargs["prompt"] = prompt
        if not any(asked):
            return _with_report(self.pipe(**kwargs), report)
        check_pipeline(self.pipe, self.family)
        denoiser = getattr(self.pipe, self.family.denoiser)
        tap = Tap(self.family.points(denoiser), self.family.attention(denoiser), self.objective.spec)
        tokens = int(self.family.tokenizer(self.pipe).model_max_length)
        weights = columns_to_weights(spots, tokens)
        refiner = Refiner(self.family, denoiser, self.objective, tap, self.config, samples, weights)
        session = Session(self.pipe, self.family, refiner)
        with session.installed():
            output = self.pipe(**kwargs)
        report.seconds = session.seconds
        return _with_report(output, report)

    def _asked(
        self,
        prompt: str | Sequence[str] | None,
        relations: Any,
        columns: Sequence[Mapping[str, Sequence[int]]] | None,
        kwargs: Mapping[str, Any],
    ) -> tuple[list[tuple[Relation, ...]], list[Any]]:
        """Relations per prompt, and where to find their objects (the prompt, or given columns)."""
        if prompt is None:
            if kwargs.get("prompt_embeds") is None:
                raise PromptError("give a prompt, or prompt_embeds with relations and columns")
            if relations is None or columns is None:
                raise PromptError(
                    "prompt_embeds carry no text to find objects in: give relations, and columns with the text columns "
                    'of each object, e.g. columns=[{"dog": [5], "teddy bear": [9, 10]}]'
                )
            nested = _nested(relations, len(columns))
            return [tuple(map(_relation, group)) for group in nested], list(columns)
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if relations is None:
            return [text.parse(p) for p in texts], list(texts)
        nested = _nested(relations, len(texts))
        found = [tuple(text.locate(p, _relation(r)) for r in group) for p, group in zip(texts, nested, strict=True)]
        return found, list(texts)

    def _pairs(
        self, relations: Sequence[Relation], where: str | Mapping[str, Sequence[int]]
    ) -> tuple[tuple[Pair, ...], list[tuple[int, ...]]]:
        """A prompt's relations as pairs of object numbers, and every object's text columns."""
        known = self.objective.predicates()
        ends: list[tuple[str, tuple[int, int] | None]] = []
        for relation in relations:
            if relation.predicate not in known:
                raise PromptError(f"{relation.predicate!r} cannot be steered here; known: {', '.join(known)}")
            ends += [(relation.subject, relation.subject_span), (relation.object, relation.object_span)]
        objects = list(dict.fromkeys(ends))
        pairs = tuple(
            Pair(objects.index(ends[2 * n]), relation.predicate, objects.index(ends[2 * n + 1]))
            for n, relation in enumerate(relations)
        )
        if isinstance(where, str):
            spans = [span for _, span in objects if span is not None]
            return pairs, text.token_columns(self.family.tokenizer(self.pipe), where, spans)
        for name, _ in objects:
            if name not in where:
                raise PromptError(f"columns name no {name!r}; they name {', '.join(where)}")
        return pairs, [tuple(where[name]) for name, _ in objects]


def _relation(asked: Asked) -> Relation:
    if isinstance(asked, Relation):
        return asked
    return Relation.from_text(asked if isinstance(asked, str) else " | ".join(asked))


def _nested(relations: Any, prompts: int) -> list[list[Asked]]:
    """Relations per prompt from a flat list (one prompt) or a list of lists."""
    flat = all(
        isinstance(r, (Relation, str)) or (len(r) == 3 and all(isinstance(w, str) for w in r)) for r in relations
    )
    nested = [list(relations)] if flat and prompts == 1 else [list(group) for group in relations]
    if (flat and prompts != 1) or len(nested) != prompts:
        raise PromptError(f"{prompts} prompts need {prompts} lists of relations, got {len(relations)} entries")
    return nested


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
