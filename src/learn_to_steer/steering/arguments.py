"""The arguments that a steered call takes besides the pipeline's own: their forms, and errors for anything else."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import Relation

RelationLike = Relation | str | Sequence[str]
Columns = Mapping[str, Sequence[int]]  # the text columns (token positions) of each object's name

FORMS = '"dog | left of | cat", ("dog", "left of", "cat"), a Relation, or a list of these'


def text_list(name: str, given: Any) -> list[str]:
    """Return a list of prompts.

    Args:
        name: Name of the argument.
        given: Its value.

    Raises:
        PromptError: It is no list of strings, or an empty one.
    """
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
        raise PromptError(f"{name} is {reprlib.repr(given)}; it must be a string or a list of strings")
    if not given:
        raise PromptError(f"{name} is an empty list; give at least one string")
    return list(given)


def nested_relations(relations: Any, prompts: int) -> list[list[RelationLike]]:
    """Return relations per prompt.

    Args:
        relations: One relation or a list of them (for one prompt), or a list for each prompt.
        prompts: Number of prompts.

    Raises:
        PromptError: The numbers do not agree, or this is no relation and no list of relations.
    """
    if _is_one(relations):
        relations = [relations]
    if not isinstance(relations, (list, tuple)):
        raise _no_relations(relations)
    flat = all(map(_is_one, relations))
    if not flat and not all(_is_one(group) or isinstance(group, (list, tuple)) for group in relations):
        raise _no_relations(next(one for one in relations if not _is_one(one) and not isinstance(one, (list, tuple))))
    nested = [[group] if _is_one(group) else list(group) for group in ([relations] if flat else relations)]
    if (flat and prompts != 1) or len(nested) != prompts:
        raise PromptError(
            f"{prompts} prompts need {prompts} lists of relations, got {len(relations)} entries; a list has {FORMS}"
        )
    for one in (one for group in nested for one in group):
        if not _is_one(one):
            raise _no_relations(one)
    return nested


def relation(given: RelationLike) -> Relation:
    """Return the relation that one entry of ``nested_relations`` stands for.

    Args:
        given: A Relation, "dog | left of | cat", or a triple.

    Raises:
        PromptError: A name is empty, the predicate is unknown, or a span is no pair of whole numbers.
    """
    if not isinstance(given, Relation):
        return Relation.from_text(given if isinstance(given, str) else " | ".join(given))
    for span in (given.subject_span, given.object_span):
        whole = isinstance(span, tuple) and [type(offset) for offset in span] == [int, int]
        if span is not None and not whole:
            raise PromptError(f"{given!r} has the span {span!r}; a span is two whole numbers, or None")
    return given


def _is_one(given: Any) -> bool:
    """Whether this is one relation: a Relation, "dog | left of | cat", or three names."""
    if isinstance(given, (Relation, str)):
        return True
    named = isinstance(given, (list, tuple)) and len(given) == 3
    return named and all(isinstance(word, str) and "|" not in word for word in given)


def _no_relations(given: Any) -> PromptError:
    return PromptError(
        f"cannot read the relations {reprlib.repr(given)}; give {FORMS}; for several prompts a list each"
    )


def columns_per_prompt(given: Any, prompts: int, window: int) -> list[Columns]:
    """Return the text columns of objects per prompt.

    Args:
        given: A dict (for one prompt), or a list with a dict for each prompt.
        prompts: Number of prompts.
        window: Number of text columns.

    Raises:
        PromptError: The numbers do not agree, or a column cannot be one of this text.
    """
    entries = [given] if isinstance(given, Mapping) else given
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in entries):
        raise PromptError(
            f"columns is {reprlib.repr(given)}; it must be a list with a dict for each prompt, "
            'e.g. [{"dog": [5], "teddy bear": [9, 10]}]'
        )
    if len(entries) != prompts:
        raise PromptError(
            f"prompts or prompt_embeds have {prompts} rows but columns {len(entries)} entries; give one a row"
        )
    return [{name: _column_numbers(name, its, window) for name, its in entry.items()} for entry in entries]


def whole_number(name: str, given: Any) -> int:
    """Return an argument that must be a whole number from 1.

    Args:
        name: Name of the argument.
        given: Its value.

    Raises:
        PromptError: It is anything else.
    """
    number = _index(given)
    if number is None or number < 1:
        raise PromptError(f"{name} is {reprlib.repr(given)}; it must be a whole number from 1")
    return number


def _column_numbers(name: Any, given: Any, window: int) -> tuple[int, ...]:
    """The text columns of one object."""
    if not isinstance(name, str):
        raise PromptError(f"columns has the key {name!r}; it must be the name of an object")
    try:
        entries = [] if isinstance(given, (str, bytes)) else list(given)
    except TypeError:  # no iterable, or a tensor of no dimensions
        entries = []
    if not entries:
        raise PromptError(f"the columns of {name!r} are {reprlib.repr(given)}; give a list of whole numbers, as in [5]")
    numbers = []
    for one in entries:
        number = _index(one)
        if number is None:
            raise PromptError(f"the columns of {name!r} hold {reprlib.repr(one)}; they must be whole numbers")
        numbers.append(number)
    outside = [number for number in numbers if not 0 <= number < window]
    if outside:
        raise PromptError(
            f"the columns of {name!r} are {numbers}, but must be from 0 to {window - 1}: the text has {window} columns"
        )
    return tuple(dict.fromkeys(numbers))  # their maps are averaged, each once


def _index(given: Any) -> int | None:
    """A whole number of any type as an int; None for everything else, True and False included."""
    try:
        return None if "bool" in str(getattr(given, "dtype", type(given))) else operator.index(given)
    except TypeError:
        return None
