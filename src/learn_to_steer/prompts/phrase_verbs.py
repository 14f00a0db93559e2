"""Verbs that look like nouns: where a run of words after a determiner is a noun and its verb ("a kite drifts")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.tagging import Tag, TaggedPrompt

_AFTER_VERB = (Tag.RELATION, Tag.PREPOSITION, Tag.DETERMINER, Tag.FILLER)


@dataclass(frozen=True)
class Unit:
    """A part of a noun phrase: the words from ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    noun: bool
    compound: bool = False


def find_verb(
    tagged: TaggedPrompt, units: Sequence[Unit], determiner: str, following: Tag, after_relation: bool
) -> tuple[int, Tag]:
    """Find the verb of "a kite drifts", "two dogs nap" and "rain streaks the window".

    Args:
        tagged: The prompt.
        units: The parts of what may be a noun phrase.
        determiner: Its last determiner; empty without one.
        following: The tag of what follows it.
        after_relation: Whether it follows a relation phrase or a preposition.

    Returns:
        The index of the unit that must be a verb (0: none), and the tag of its chunk: STOP where the word could be a
        noun as well.
    """
    for at in range(1, len(units)):
        earlier, unit, last = units[at - 1], units[at], at + 1 == len(units)
        word, noun = tagged.texts[unit.start], tagged.texts[earlier.end - 1]
        if not (earlier.noun and unit.noun and unit.end - unit.start == 1 and word.isalpha() and noun.isalpha()):
            continue
        in_s = noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in noun_lists.SINGULAR_IN_S
        several = noun in noun_lists.IRREGULAR_PLURALS or in_s
        placed = last and not after_relation and following in _AFTER_VERB
        if word.endswith("s"):
            if word.endswith(("ss", "us", "is", "as")) or word in noun_lists.SINGULAR_IN_S:
                continue
            if determiner in word_lists.SINGULAR_DETERMINERS or (word in word_lists.CONTAINING_VERBS and not several):
                return at, Tag.FILLER
            if placed and not several and word in word_lists.VERBS_IN_S:
                return at, Tag.FILLER  # "their dog digs under"
            if last and several and following is Tag.RELATION and word in word_lists.VERBS_IN_S:
                return at, Tag.FILLER  # "a procession of monks winds below"
            if last and following is Tag.DETERMINER:
                return at, Tag.STOP if after_relation else Tag.FILLER  # "above the palm trees a bird"
            if last and not after_relation and word in word_lists.AMBIGUOUS_IN_S and not noun.endswith("s"):
                animate = noun.endswith(noun_lists.AGENT_ENDINGS) or noun in noun_lists.ANIMATE_NOUNS
                return (
                    at,
                    Tag.FILLER if animate else Tag.STOP,
                )  # "the girl waves", but "the car parks", "the city parks"
            continue
        if not several or word in noun_lists.IRREGULAR_PLURALS:
            continue
        counted = determiner in word_lists.PLURAL_DETERMINERS or determiner.isdigit()
        if (last and counted) or (placed and word in word_lists.PLURAL_VERBS):  # "lamps glow over"
            return at, Tag.FILLER
    return 0, Tag.FILLER
