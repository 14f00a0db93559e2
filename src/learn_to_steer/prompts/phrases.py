"""The ways English says each predicate, and the one way we say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache

from learn_to_steer.errors import PromptError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL

PREDICATES: tuple[str, ...] = BASIC + DIAGONAL
_ABOVE = (
    "above",
    "over",
    "on top of",
    "on the top of",
    "on the very top of",
    "at the top of",
    "ontop of",
    "atop",
    "atop of",
    "higher than",
    "higher up than",
)
_BELOW = (
    "below",
    "under",
    "underneath",
    "beneath",
    "on bottom of",
    "on the bottom of",
    "at the bottom of",
    "lower than",
)
# Vertical words that form diagonals: alone ("above left of") and as adjectives of a side ("upper left of").
_VERTICAL = {"above": ("above", "over"), "below": ("below", "under", "underneath", "beneath")}
_CORNER = {"above": ("upper", "top"), "below": ("lower", "bottom")}
_LEADS = ("", "to the ", "on the ", "at the ", "to ", "on ", "off to the ", "over to the ")


def phrase(predicate: str) -> str:
    """The words for ``predicate`` in a prompt: "left of" -> "to the left of"; the neutral "is" stays "is".

    Raises PromptError for an unknown predicate.
    """
    if predicate in ("above", "below", NEUTRAL):
        return predicate
    if predicate in BASIC:
        return f"to the {predicate}"
    if predicate in DIAGONAL:
        vertical, horizontal = predicate.split(" ", 1)
        return f"{vertical} and to the {horizontal}"
    raise unknown_predicate(predicate)


def canonical(text: str) -> str:
    """The predicate that ``text`` means: "On top of" -> "above". Raises PromptError when it means none."""
    words = tuple(re.findall(r"[^\W_]+", text.lower()))
    found = _table().get(words)
    if found is None:
        raise unknown_predicate(text)
    return found


def match(words: Sequence[str], start: int) -> tuple[str, int] | None:
    """The longest relation phrase that begins at ``words[start]``: its predicate and its number of words."""
    for length in range(min(_longest(), len(words) - start), 0, -1):
        predicate = _table().get(tuple(words[start : start + length]))
        if predicate is not None:
            return predicate, length
    return None


def unknown_predicate(text: str) -> PromptError:
    """The error for a predicate that does not exist, with the nearest one that does."""
    nearest = get_close_matches(text.lower().strip(), [" ".join(words) for words in _table()], n=1, cutoff=0.7)
    hint = f"; did you mean {_table()[tuple(nearest[0].split())]!r}?" if nearest else ";"
    return PromptError(f"unknown predicate {text.strip()!r}{hint} known: {', '.join(PREDICATES)}")


@cache
def _table() -> dict[tuple[str, ...], str]:
    """Every relation phrase, as words without hyphens -> its predicate."""
    table = dict.fromkeys(_ABOVE, "above") | dict.fromkeys(_BELOW, "below")
    for side in ("left", "right"):
        sides = [
            f"{lead}{distance}{side}{tail} of"
            for lead in _LEADS
            for distance in ("", "far ", "immediate ", "direct ", "very ", "near ", "extreme ")
            for tail in ("", " side", " hand side")
        ]
        table |= dict.fromkeys(sides, f"{side} of")
        for vertical in ("above", "below"):
            # "over to the left of" is left of; "over and to the left of" is a diagonal.
            diagonals = [
                f"{word} {link}{form}"
                for word in _VERTICAL[vertical]
                for link in ("", "and ")
                for form in sides
                if link or word != "over"
            ]
            diagonals += [
                f"{lead}{word} {side}{tail} of"
                for word in _CORNER[vertical]
                for lead in _LEADS
                for tail in ("", " side")
            ]
            diagonals += [
                f"{lead}{side}{of} and {word}" for word in _VERTICAL[vertical] for lead in _LEADS for of in ("", " of")
            ]
            for form in diagonals:
                table[form] = table[f"diagonally {form}"] = f"{vertical} {side} of"
    return {tuple(form.split()): predicate for form, predicate in table.items()}


@cache
def _longest() -> int:
    return max(len(words) for words in _table())
