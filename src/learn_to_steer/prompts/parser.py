"""Prompt -> relations: every relation phrase with the nouns it stands between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import heads, lexicon, nouns, places, verbs
from learn_to_steer.prompts._spacy import noun_phrases
from learn_to_steer.prompts.chunks import Item, chunk
from learn_to_steer.prompts.relation import Relation
from learn_to_steer.prompts.words import Kind


def parse(prompt: str, *, nlp: Callable[[str], Any] | None = None) -> tuple[Relation, ...]:
    """The spatial relations that a prompt asks for, in reading order and with spans; () when there are none.

    A chain "A r1 B r2 C" gives (A, r1, B) and (B, r2, C); "A r1 B and C r2 D" gives two pairs; in "A r1 B and r2 C"
    and in "A r1 B is r2 C" the second demand is about A; "above B hangs A" is (A, above, B). What is not clear is
    left out, and so is what only a reader of pronouns could tell ("a cat with a dog on its left").

    ``nlp`` is a loaded spaCy pipeline: its noun chunks are the objects then, instead of those of our own grammar.
    Raises PromptError for an empty prompt, or for a pipeline without a parser.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; describe the picture, e.g. 'a dog to the left of a cat'")
    items = chunk(prompt, noun_phrases(nlp(prompt)) if nlp else None)
    links = heads.Links()
    relations: list[Relation] = []
    for index, item in enumerate(items):
        if item.kind is not Kind.RELATION:
            continue
        reference = places.reference(items, index)
        if reference is None:
            continue
        if not places.is_place(items, index, reference):
            # "on the right of the picture" still says more of the noun before it.
            items[index] = replace(item, kind=Kind.PREPOSITION, text="in")
            continue
        subject = heads.subject(items, index, links)
        inverted = _inverted(items, index, reference)
        subject = subject if inverted is None else inverted
        if subject is not None and (subject == reference or not places.is_thing(items[subject])):
            subject = None
        links.add(subject, reference)
        if subject is not None:
            a, b = items[subject], items[reference]
            relations.append(Relation(a.text, item.text, b.text, a.span, b.span))
    return tuple(relations)


def _inverted(items: list[Item], relation: int, reference: int) -> int | None:
    """Index of the subject where it follows: "above the bench hangs a clock", "under the table, a cat sleeps"."""
    start = relation
    while start > 0 and items[start - 1].kind is Kind.GLUE:
        start -= 1
    opening = start == 0 or items[start - 1].kind is Kind.STOP or items[start - 1].text == ";"
    clause = opening or items[start - 1].kind is Kind.JOIN
    if not clause and not _opens_with_place(items, start):
        return None
    at = reference + 1
    while at + 1 < len(items) and items[at].kind is Kind.PREPOSITION and items[at + 1].kind is Kind.NOUN:
        at += 2
    comma = at < len(items) and items[at].text == ","
    at += comma
    there = at < len(items) and items[at].text in ("there", "there's")
    at += there
    said = []
    while at < len(items) and items[at].kind is Kind.GLUE:
        said.append(items[at].text)
        at += 1
    if at >= len(items) or items[at].kind is not Kind.NOUN or any(word in lexicon.RELATIVES for word in said):
        return None
    follows = there or (not comma and any(verbs.is_finite(word) for word in said))
    if follows and (items[at].determiner or there or said[-1:] in (["is"], ["are"])):
        return at
    follower = items[at + 1] if at + 1 < len(items) else items[at]
    # "above the stove, copper pans gleam", but not "above the stove, fantasy art"
    acts = items[at].text.endswith("s") and follower.kind is Kind.GLUE and verbs.is_finite(follower.text)
    named = (items[at].determiner or acts) and items[at].text not in nouns.PICTURES
    return at if opening and not said and named else None


def _opens_with_place(items: list[Item], start: int) -> bool:
    """Whether nothing but "in the kitchen" stands before ``start`` in its clause."""
    before = start - 1
    while before > 0 and items[before].kind is Kind.NOUN and items[before - 1].kind is Kind.PREPOSITION:
        before -= 2
    return before < start - 1 and (before < 0 or items[before].kind in (Kind.STOP, Kind.JOIN))
