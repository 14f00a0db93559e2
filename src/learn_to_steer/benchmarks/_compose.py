"""Prompts written from a template, their relations and where in the text their nouns stand."""

from __future__ import annotations

from collections.abc import Sequence

from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, geneval_line
from learn_to_steer.prompts import Relation, article, phrase


def compose(
    index: int, objects: Sequence[str], joints: Sequence[str | None], prefix: str = "a photo of"
) -> BenchmarkPrompt:
    """The prompt "<prefix> a A r1 a B r2 a C ...", or "a A r1 ..." without a prefix.

    ``joints[i]`` is the predicate between objects i and i + 1, or None for "and", which starts a new pair.
    """
    text, spans = prefix, []
    for place, noun in enumerate(objects):
        if place:
            predicate = joints[place - 1]
            text += " and" if predicate is None else f" {phrase(predicate)}"
        text += f"{' ' if text else ''}{article(noun)} {noun}"
        spans.append((len(text) - len(noun), len(text)))
    relations = tuple(
        Relation(objects[i], predicate, objects[i + 1], subject_span=spans[i], object_span=spans[i + 1])
        for i, predicate in enumerate(joints)
        if predicate is not None
    )
    return BenchmarkPrompt(index, text, relations, geneval_line(text, relations))
