"""Prompt -> relations: every relation phrase with the nouns it stands between."""

from __future__ import annotations

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import lexicon
from learn_to_steer.prompts.chunks import Item, Kind, chunk
from learn_to_steer.prompts.relation import Relation


def parse(prompt: str) -> tuple[Relation, ...]:
    """The spatial relations that a prompt asks for, in reading order and with spans; () when there are none.

    A chain "A r1 B r2 C" gives (A, r1, B) and (B, r2, C); "A r1 B and C r2 D" gives two pairs; in "A r1 B and r2 C"
    the second demand is about A. Raises PromptError for an empty prompt.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; describe the picture, e.g. 'a dog to the left of a cat'")
    items = chunk(prompt)
    relations: list[Relation] = []
    previous: tuple[int, int] | None = None
    for index, item in enumerate(items):
        if item.kind is not Kind.RELATION:
            continue
        subject, reference = _subject(items, index, previous), _object(items, index)
        if subject is None or reference is None:
            continue
        previous = (subject, reference)
        a, b = items[subject], items[reference]
        relations.append(Relation(a.text, item.text, b.text, a.span, b.span))
    return tuple(relations)


def _subject(items: list[Item], relation: int, previous: tuple[int, int] | None) -> int | None:
    """Index of the noun that the relation is said of; ``previous`` holds the last relation's two nouns."""
    at = relation - 1
    joined = False
    while at >= 0 and items[at].kind in (Kind.GLUE, Kind.JOIN):
        joined |= items[at].kind is Kind.JOIN
        at -= 1
    if at < 0 or items[at].kind is not Kind.NOUN:
        return None
    head = _head(items, at)
    if joined and previous is not None and head == previous[1]:
        return previous[0]
    return head


def _head(items: list[Item], noun: int) -> int | None:
    """The noun that the one at ``noun`` belongs to: "a cup of tea" -> cup, "a photo of a dog in the snow" -> dog."""
    while noun > 0:
        before = items[noun - 1]
        if before.kind is Kind.NOT:
            return None
        if before.kind is not Kind.PREPOSITION or before.text not in lexicon.ATTACHING:
            return noun
        at = noun - 2
        while at >= 0 and items[at].kind is Kind.GLUE:
            at -= 1
        if at < 0 or items[at].kind is not Kind.NOUN:
            return noun if before.text == "of" else None  # "on the table below a lamp" names no subject
        if before.text == "of" and (_is_part(items[at]) or items[at].text in lexicon.PICTURES):
            return noun
        noun = at
    return noun


def _object(items: list[Item], relation: int) -> int | None:
    """Index of the noun that the relation refers to."""
    at = relation + 1
    while at + 2 < len(items) and _is_part(items[at]) and items[at + 1].text == "of":
        at += 2
    if at >= len(items) or items[at].kind is not Kind.NOUN or items[at].text in lexicon.NOT_OBJECTS:
        return None
    of_something = at + 1 < len(items) and items[at + 1].text == "of"
    if items[at].definite and items[at].text in lexicon.FRAMES and not of_something:
        return None
    return at


def _is_part(item: Item) -> bool:
    return item.kind is Kind.NOUN and (item.text in lexicon.PARTS or item.text.removesuffix("s") in lexicon.PARTS)
