"""Prompts of the user's own, from a JSON-lines file."""

from __future__ import annotations

import os
from typing import Any

from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, geneval_line
from learn_to_steer.errors import DataError, PromptError
from learn_to_steer.prompts import Relation, locate, parse
from learn_to_steer.storage import read_jsonl


def load_file(path: str | os.PathLike[str]) -> list[BenchmarkPrompt]:
    """Read prompts from lines like ``{"prompt": ..., "relations": [[subject, predicate, object], ...]}``.

    Lines without ``relations`` are parsed. ``metadata`` is the line itself; what GenEval's layout needs is
    added where it is missing. Raises DataError for a missing, empty or malformed file and PromptError for a
    prompt without a relation, an unknown predicate, or an object that the prompt does not contain; both
    name the row (blank lines do not count).
    """
    rows = read_jsonl(path, allow_torn=False)
    if not rows:
        raise DataError(f"{path} holds no prompts; write one JSON object with a 'prompt' on each line")
    return [_prompt(index, row, f"{path}, row {index + 1}") for index, row in enumerate(rows)]


def _prompt(index: int, row: dict[str, Any], place: str) -> BenchmarkPrompt:
    text, given = row.get("prompt"), row.get("relations")
    if not isinstance(text, str):
        raise DataError(f"{place}: 'prompt' must be a string, not {text!r}")
    if given is not None and not isinstance(given, list):
        raise DataError(f"{place}: 'relations' must be a list, not {given!r}")
    try:
        relations = parse(text) if given is None else tuple(_relation(text, entry, place) for entry in given)
    except PromptError as error:
        raise PromptError(f"{place}: {error}") from error
    if not relations:
        raise PromptError(f"{place}: no spatial relation in {text!r}; reword it or give 'relations'")
    return BenchmarkPrompt(index, text, relations, geneval_line(text, relations) | row)


def _relation(text: str, entry: Any, place: str) -> Relation:
    if not (isinstance(entry, list) and len(entry) == 3 and all(isinstance(word, str) for word in entry)):
        raise DataError(f"{place}: a relation is [subject, predicate, object], not {entry!r}")
    return locate(text, Relation.from_text(" | ".join(entry)))
