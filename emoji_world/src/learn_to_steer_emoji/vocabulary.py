"""The words that the packaged models were taught: those of the captions that they were trained on."""

from __future__ import annotations

import re
from functools import cache

from learn_to_steer.prompts import word_lists
from learn_to_steer_emoji.sprites import TINTS, canonical_names

# Grammar, and the wordings of relations. Steering sees to these, whether the model knows the words or not.
_FUNCTION_WORDS = (
    word_lists.DETERMINERS
    | word_lists.PREPOSITIONS
    | word_lists.CONJUNCTIONS
    | word_lists.STOPS
    | word_lists.NEGATIONS
    | word_lists.FUNCTION_WORDS
    | word_lists.DEGREE_ADVERBS
    | word_lists.word_set(
        "left right above below over under underneath beneath top bottom upper lower atop ontop up down side hand far"
        " off direct directly break immediate immediately extreme higher diagonally photo picture image"
    )
)


def untaught_words(prompt: str) -> tuple[str, ...]:
    """Return the words of a prompt that no caption had, in their order, each once.

    Args:
        prompt: The prompt.
    """
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", prompt.lower()))
    return tuple(word for word in words if len(word) > 1 and word not in taught_words() | _FUNCTION_WORDS)


@cache
def taught_words() -> frozenset[str]:
    """Return every word of the captions: names, aliases, plurals, colours, places, asides."""
    from learn_to_steer_emoji import backgrounds, captions  # these import torch

    names = canonical_names()
    places = (place for setting in captions.SETTINGS.values() for place in setting)
    grounds = (ground.phrase for ground in backgrounds.BACKGROUNDS.values())
    relations = (phrase for phrases in captions.PHRASES.values() for phrase in phrases)
    counts = captions.COUNTS.values()
    texts = (*names, *map(captions.plural, names), *TINTS, *counts, *relations, *places, *grounds)
    told = (*texts, *captions.OPENINGS, *captions.ASIDES, *captions.ADJECTIVES)
    return frozenset(re.findall(r"[^\W\d_]+", " ".join(told).lower()))
