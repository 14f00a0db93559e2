"""Joined nouns: "a cat and a dog above a tree" and "a cat above a table, a chair and a lamp" give every pair."""

from __future__ import annotations

from collections.abc import Callable

from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.chunking import Chunk
from learn_to_steer.prompts.tagging import Tag

_AND = ("and", "&", "+", "plus", "as well as")
_SETTINGS = ("in", "at", "inside", "during")


def joined_before(chunks: list[Chunk], last: int, can_be_placed: Callable[[Chunk], bool]) -> list[int]:
    """Find the nouns that are joined to a subject before it.

    Args:
        chunks: The chunks of a sentence.
        last: Index of the subject, the last noun of "a cat, a dog and a bird above a tree".
        can_be_placed: Whether a noun names something that has a place.

    Returns:
        The indices of all subjects in reading order, ``last`` included.
    """
    found = [last]
    needed = 1
    at = last
    while True:
        link, noun = _link_before(chunks, at)
        if link == [",", "and"] and len(found) == 1:
            needed = 3  # "a vase, and a lamp left of a clock" is about the lamp
        elif not (link[-1:] == ["and"] or (link == [","] and len(found) > 1)):
            break
        head = _head(chunks, noun)
        if head is None or not can_be_placed(chunks[head]) or not _alike(chunks[head], chunks[last], link == [","]):
            break
        found.append(head)
        at = head
    return found[::-1] if len(found) >= needed else [last]


def joined_after(
    chunks: list[Chunk], first: int, can_be_placed: Callable[[Chunk], bool], *, before_verb: bool = False
) -> list[int]:
    """Find the nouns that are joined to a noun after it.

    Args:
        chunks: The chunks of a sentence.
        first: Index of the first noun of "above a table, a chair and a lamp".
        can_be_placed: Whether a noun names something that has a place.
        before_verb: Whether the verb of the sentence may follow: "below the tree, a cat and a dog sleep".

    Returns:
        The indices of all joined nouns in reading order, ``first`` included.
    """
    found = [first]
    closed = [first]  # up to the last "and"
    at = _after_of(chunks, first)
    while True:
        noun = at
        while noun < len(chunks) and chunks[noun].tag is Tag.CONJUNCTION:
            noun += 1
        link = ["and" if chunk.text in _AND else chunk.text for chunk in chunks[at:noun]]
        if link not in ([","], ["and"], [",", "and"]) or noun >= len(chunks) or chunks[noun].tag is not Tag.NOUN:
            break
        if not can_be_placed(chunks[noun]) or not _alike(chunks[noun], chunks[first], len(link) > 1 or link == [","]):
            break
        found.append(noun)
        at = _after_of(chunks, noun)
        if link[-1] == "and":
            if not _may_end(chunks, at, before_verb) or (link == [",", "and"] and len(found) == 2):
                break
            closed = list(found)
    return closed


def _link_before(chunks: list[Chunk], at: int) -> tuple[list[str], int]:
    """The conjunctions before ``at``, and the index of the chunk before them."""
    noun = at - 1
    while noun >= 0 and chunks[noun].tag is Tag.CONJUNCTION:
        noun -= 1
    return ["and" if chunk.text in _AND else chunk.text for chunk in chunks[noun + 1 : at]], noun


def _head(chunks: list[Chunk], noun: int) -> int | None:
    """The noun of the phrase that ends at ``noun``; None when it is not a phrase by itself."""
    if noun < 0 or chunks[noun].tag is not Tag.NOUN:
        return None
    while noun > 1 and chunks[noun - 1].text == "of" and chunks[noun - 2].tag is Tag.NOUN:
        outer = chunks[noun - 2].text
        if outer in noun_lists.IMAGE_NOUNS or outer in noun_lists.PART_NOUNS:
            break  # "a photo of a dog", "a pair of shoes"
        noun -= 2
    before = noun - 1
    if before < 0 or chunks[before].tag in (Tag.STOP, Tag.CONJUNCTION):
        return noun
    if chunks[before].tag is Tag.FILLER:
        # "there is a dog and a cat", but not "a man holds a dog and a cat"
        verbs = []
        while before >= 0 and chunks[before].tag is Tag.FILLER:
            verbs.append(chunks[before].text)
            before -= 1
        shown = any(verb in word_lists.CONTAINING_VERBS for verb in verbs)
        return noun if before < 0 or chunks[before].tag is not Tag.NOUN or shown else None
    if chunks[before].tag is Tag.PREPOSITION and before > 0:
        return noun if _shows(chunks[before - 1]) or chunks[before].text == "of" else None
    return noun if chunks[before].tag is Tag.PREPOSITION and chunks[before].text == "with" else None


def _shows(chunk: Chunk) -> bool:
    """Whether what follows "with" or "of" is the content of this: of a picture, a room."""
    return chunk.text in noun_lists.IMAGE_NOUNS or chunk.text in noun_lists.PLACE_NOUNS


def _alike(noun: Chunk, other: Chunk, listed: bool) -> bool:
    """Whether two nouns may be joined; in a list both have a determiner."""
    named = not (noun.text in noun_lists.IMAGE_NOUNS or {noun.text, other.text} & noun_lists.BODY_PARTS)
    if not listed:
        return named
    return named and bool(noun.determiner and other.determiner) and noun.text not in noun_lists.PLACE_NOUNS


def _after_of(chunks: list[Chunk], noun: int) -> int:
    """The chunk after a noun and its "of ...": "a cup of tea"."""
    at = noun + 1
    while at + 1 < len(chunks) and chunks[at].text == "of" and chunks[at + 1].tag is Tag.NOUN:
        at += 2
    return at


def _may_end(chunks: list[Chunk], at: int, before_verb: bool) -> bool:
    """Whether what follows is not about the last noun alone: "left of a bed and a painting on the wall"."""
    if at >= len(chunks) or chunks[at].tag in (Tag.STOP, Tag.CONJUNCTION):
        return True
    if before_verb and chunks[at].tag is Tag.FILLER:
        return True
    setting = chunks[at].tag is Tag.PREPOSITION and chunks[at].text in _SETTINGS and at + 1 < len(chunks)
    return setting and (chunks[at + 1].text in noun_lists.PLACE_NOUNS or chunks[at + 1].text in noun_lists.NOT_OBJECTS)
