"""What a call asks for: relations per prompt, and the text columns where their objects stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learn_to_steer import prompts as text
from learn_to_steer.errors import PromptError
from learn_to_steer.families import Family
from learn_to_steer.objectives._protocol import Objective, Pair
from learn_to_steer.prompts import Relation

Asked = Relation | str | Sequence[str]
Spot = str | Mapping[str, Sequence[int]]  # the text that holds the objects, or their columns by name


@dataclass(frozen=True)
class Request:
    """One prompt: its text, its relations, the same as pairs of object numbers, and each object's columns.

    ``words`` are the columns of all its words, for objectives that ask for every column; else, and with
    ``prompt_embeds``, empty.
    """

    prompt: str
    relations: tuple[Relation, ...]
    pairs: tuple[Pair, ...]
    columns: tuple[tuple[int, ...], ...]
    words: tuple[int, ...] = ()


def read(
    pipe: Any,
    family: Family,
    objective: Objective,
    prompt: str | Sequence[str] | None,
    relations: Sequence[Asked] | Sequence[Sequence[Asked]] | None,
    columns: Sequence[Mapping[str, Sequence[int]]] | None,
    kwargs: Mapping[str, Any],
) -> list[Request]:
    """One request a prompt (or a row of ``prompt_embeds``); PromptError for what cannot be understood."""
    spots: list[Spot]
    if prompt is None:
        asked, spots = _embedded(relations, columns, kwargs)
        shown = [""] * len(asked)
    else:
        shown = [prompt] if isinstance(prompt, str) else list(prompt)
        texts = family.text(shown, kwargs)
        if len(texts) != len(shown):
            raise PromptError(f"{len(shown)} prompts but {len(texts)} second prompts; give one for each")
        # Textual inversion writes one word as several; columns are those of what the text encoder sees.
        expand = getattr(pipe, "maybe_convert_prompt", None)
        expanded = [expand(p, family.tokenizer(pipe)) for p in texts] if expand else texts
        asked, spots = _found(expanded, relations), list(expanded)
    requests = []
    for given, found, spot in zip(shown, asked, spots, strict=True):
        pairs, groups = _pairs(pipe, family, objective, found, spot, kwargs)
        words: tuple[int, ...] = ()
        if found and isinstance(spot, str) and objective.spec.columns == "every":
            (words,) = family.columns(pipe, spot, [(0, len(spot))], kwargs)
        requests.append(Request(given, found, pairs, tuple(groups), words))
    return requests


def _embedded(
    relations: Any, columns: Sequence[Mapping[str, Sequence[int]]] | None, kwargs: Mapping[str, Any]
) -> tuple[list[tuple[Relation, ...]], list[Spot]]:
    embeds = kwargs.get("prompt_embeds")
    if embeds is None:
        raise PromptError("give a prompt, or prompt_embeds with relations and columns")
    if relations is None or columns is None:
        raise PromptError(
            "prompt_embeds carry no text to find objects in: give relations, and columns with the text columns "
            'of each object, e.g. columns=[{"dog": [5], "teddy bear": [9, 10]}]'
        )
    if len(columns) != len(embeds):
        raise PromptError(f"prompt_embeds have {len(embeds)} rows but columns {len(columns)} entries; give one a row")
    nested = _nested(relations, len(columns))
    return [tuple(map(_relation, group)) for group in nested], list(columns)


def _found(texts: Sequence[str], relations: Any) -> list[tuple[Relation, ...]]:
    if relations is None:
        return [text.parse(p) for p in texts]
    nested = _nested(relations, len(texts))
    return [tuple(text.locate(p, _relation(r)) for r in group) for p, group in zip(texts, nested, strict=True)]


def _pairs(
    pipe: Any,
    family: Family,
    objective: Objective,
    relations: Sequence[Relation],
    spot: Spot,
    arguments: Mapping[str, Any],
) -> tuple[tuple[Pair, ...], list[tuple[int, ...]]]:
    """A prompt's relations as pairs of object numbers, and every object's text columns."""
    check_predicates(objective, relations)
    ends: list[tuple[str, tuple[int, int] | None]] = []
    for relation in relations:
        ends += [(relation.subject, relation.subject_span), (relation.object, relation.object_span)]
    objects = list(dict.fromkeys(ends))
    pairs = tuple(
        Pair(objects.index(ends[2 * n]), relation.predicate, objects.index(ends[2 * n + 1]))
        for n, relation in enumerate(relations)
    )
    if isinstance(spot, str):
        spans = [span for _, span in objects if span is not None]
        return pairs, family.columns(pipe, spot, spans, arguments)
    for name, _ in objects:
        if name not in spot:
            raise PromptError(f"columns name no {name!r}; they name {', '.join(spot)}")
    return pairs, [tuple(spot[name]) for name, _ in objects]


def check_predicates(objective: Objective, relations: Iterable[Relation]) -> None:
    """PromptError for a relation that ``objective`` has not learned."""
    known = objective.predicates()
    for relation in relations:
        if relation.predicate not in known:
            raise PromptError(f"{relation.predicate!r} cannot be steered here; known: {', '.join(known)}")


def _relation(asked: Asked) -> Relation:
    if isinstance(asked, Relation):
        return asked
    return Relation.from_text(asked if isinstance(asked, str) else " | ".join(asked))


def _is_one(asked: Any) -> bool:
    """Whether this is a relation itself: a Relation, "dog | left of | cat", or its three words."""
    if isinstance(asked, (Relation, str)):
        return True
    return len(asked) == 3 and all(isinstance(word, str) and "|" not in word for word in asked)


def _nested(relations: Any, prompts: int) -> list[list[Asked]]:
    """Relations per prompt from a flat list (one prompt) or a list of lists."""
    flat = all(map(_is_one, relations))
    nested = [list(relations)] if flat and prompts == 1 else [list(group) for group in relations]
    if (flat and prompts != 1) or len(nested) != prompts:
        raise PromptError(f"{prompts} prompts need {prompts} lists of relations, got {len(relations)} entries")
    return nested
