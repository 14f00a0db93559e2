"""Pronouns whose noun is next to them: "a mountain with a cloud over it", "a bin with a box on its left"."""

from __future__ import annotations

from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.chunking import Chunk
from learn_to_steer.prompts.tagging import Tag

_ONE = ("it", "its", "him", "his", "her")
_SEVERAL = ("them", "their")
POSSESSIVES = ("its", "his", "her", "their")
SIDES = {"left": "left of", "right": "right of"}


def find_pair(chunks: list[Chunk], at: int, pronoun: str) -> tuple[int, int] | None:
    """Find the subject before a relation, and the noun before it that the pronoun after the relation stands for.

    Args:
        chunks: The chunks of a sentence.
        at: Index of the relation, or of the preposition of "on its left".
        pronoun: The pronoun.

    Returns:
        Indices of both nouns; None when they are not clear.
    """
    subject = at - 1
    while subject >= 0 and chunks[subject].tag is Tag.FILLER:
        subject -= 1
    if subject < 2 or chunks[subject].tag is not Tag.NOUN:
        return None
    link, noun = chunks[subject - 1], subject - 2
    if link.text == "with" and chunks[noun].text == "," and noun > 0:
        noun -= 1  # "a lighthouse, with waves below it"
    if link.text == "and" and chunks[noun].text in SIDES and noun > 3 and chunks[noun].determiner in POSSESSIVES:
        pair = find_pair(chunks, noun - 1, pronoun)  # "with a box on its left and a bag on its right"
        return pair and (subject, pair[1])
    if link.text in ("and", ",") and chunks[noun].text == pronoun and chunks[noun - 1].tag is Tag.RELATION:
        pair = find_pair(chunks, noun - 1, pronoun)  # "with a table left of it and a lamp right of it"
        return pair and (subject, pair[1])
    if link.text not in ("with", "and") or chunks[noun].tag is not Tag.NOUN:
        return None
    verbs = [chunk.text for chunk in chunks[subject + 1 : at]]
    relative = any(verb in word_lists.RELATIVE_PRONOUNS for verb in verbs)
    if not relative and any(word_lists.is_finite_verb(verb) for verb in verbs):
        return None  # "a board with a hook hangs above it"
    if link.text == "and" and subject < at - 1:
        return None  # "a guitarist and a bassist are on his left"
    if link.text == "and" and noun > 0 and chunks[noun - 1].tag not in (Tag.STOP, Tag.CONJUNCTION):
        return None
    if chunks[noun].text in noun_lists.PLACE_NOUNS and chunks[noun].text in ("room", "scene", "view"):
        return None
    counted = _is_plural(chunks[noun])
    return (subject, noun) if pronoun in (_SEVERAL if counted else _ONE) else None


def _is_plural(chunk: Chunk) -> bool:
    noun = chunk.text
    in_s = noun.endswith("s") and not noun.endswith(("ss", "us")) and noun not in noun_lists.SINGULAR_IN_S
    return noun in noun_lists.IRREGULAR_PLURALS or in_s
