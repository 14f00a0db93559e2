"""Relations between two objects, the English wordings of their predicates, and where a prompt names the objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache

from learn_to_steer.errors import PromptError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.prompts.markup import Span, vectors_end

_ARTICLES = re.compile(r"^(?:a|an|the)\s+", re.IGNORECASE)
# The article depends on the sound. The first words begin with a "y" or "w" sound, the second with a vowel sound.
_SOUNDS_CONSONANT = re.compile(r"uni(?!n|m)|us[aeu]|ute|uku|uto|ufo\b|usb\b|eu|ewe|one\b|once\b", re.IGNORECASE)
_SOUNDS_VOWEL = re.compile(r"hour|honest|honou?r|heir|x-?ray", re.IGNORECASE)

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
    "above of",
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
    "below of",
)
# Vertical words in diagonals: prepositions ("above left of") and adjectives of a side ("upper left of").
_VERTICAL_PREPOSITIONS = {"above": ("above", "over"), "below": ("below", "under", "underneath", "beneath")}
_VERTICAL_ADJECTIVES = {"above": ("upper", "top"), "below": ("lower", "bottom")}
_LEADS = ("", "to the ", "on the ", "at the ", "to ", "on ", "off to the ", "over to the ")


@dataclass(frozen=True)
class Relation:
    """One spatial relation that a prompt asks for: ``subject`` is ``predicate`` of ``object``.

    Two relations are equal when their three words are, whatever their spans.

    Attributes:
        subject: The object whose position is described, as the prompt names it, in lower case and without article,
            number or adjective.
        predicate: One of ``PREDICATES``, or the neutral "is".
        object: The object whose position the subject's is relative to, written likewise.
        subject_span: Character offsets (start, end) of the subject's noun in the prompt; None when not known.
        object_span: Those of the object's noun.

    Raises:
        PromptError: The predicate is unknown or a name is empty.
    """

    subject: str
    predicate: str
    object: str
    subject_span: Span | None = field(default=None, compare=False)
    object_span: Span | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.predicate not in PREDICATES and self.predicate != NEUTRAL:
            raise _unknown_predicate(self.predicate)
        if not self.subject.strip() or not self.object.strip():
            raise PromptError(f"a relation needs two named objects, got {self.as_list()}")

    def as_list(self) -> list[str]:
        """Return ``[subject, predicate, object]``, the form written to JSON."""
        return [self.subject, self.predicate, self.object]

    @classmethod
    def from_text(cls, text: str) -> Relation:
        """Read a relation written as "dog | left of | cat".

        Args:
            text: The three parts; the predicate in any wording ("to the left of", "on top of").

        Returns:
            The relation, without spans.

        Raises:
            PromptError: There are not three parts, a name is empty, or the predicate is unknown.
        """
        parts = [part.strip() for part in text.split("|")]
        if len(parts) != 3:
            raise PromptError(f'cannot read the relation {text!r}; write it as "dog | left of | cat"')
        subject, reference = (" ".join(_ARTICLES.sub("", part).lower().split()) for part in (parts[0], parts[2]))
        return cls(subject, predicate_from_text(parts[1]), reference)


def locate(prompt: str, relation: Relation) -> Relation:
    """Fill in the spans of a relation by searching for its nouns as whole words, in any case.

    A noun gets its first occurrence outside the other noun ("dog" is not found in "hot dog"). Two equal nouns get the
    first and the second occurrence. A token of textual inversion gets all its vectors ("<toy> <toy>_1").

    Args:
        prompt: The prompt to search.
        relation: The relation; spans that it already has are kept.

    Returns:
        The relation with both spans.

    Raises:
        PromptError: A noun is not in the prompt, or a given span lies outside it.
    """
    names = {"subject_span": relation.subject, "object_span": relation.object}
    given = {"subject_span": relation.subject_span, "object_span": relation.object_span}
    spans = {key: span for key, span in given.items() if span is not None}
    for key, (start, end) in spans.items():
        if not 0 <= start < end <= len(prompt):
            raise PromptError(f"the span ({start}, {end}) of {names[key]!r} lies outside the prompt {prompt!r}")
    for key in sorted(names.keys() - spans.keys(), key=lambda key: (-len(names[key]), key != "subject_span")):
        # The longer name first, since it may contain the other one.
        spans[key] = _find(prompt, names[key], tuple(spans.values()))
    return replace(relation, subject_span=spans["subject_span"], object_span=spans["object_span"])


def shift_spans(relation: Relation, prompt: str, expand: Callable[[str], str]) -> Relation:
    """Move the spans of a relation to where its nouns are after ``expand``.

    Args:
        relation: A relation in ``prompt``.
        prompt: The prompt.
        expand: Replaces words by longer text, as textual inversion does with tokens of several vectors.

    Returns:
        The relation with spans in ``expand(prompt)``; those that are None stay so.
    """

    def moved(span: Span | None) -> Span | None:
        return span and (len(expand(prompt[: span[0]])), len(expand(prompt[: span[1]])))

    return replace(relation, subject_span=moved(relation.subject_span), object_span=moved(relation.object_span))


def relation_prompt(subject: str, predicate: str, object: str) -> str:
    """Word a relation as a prompt.

    Args:
        subject: The subject's noun.
        predicate: One of ``PREDICATES``, or "is".
        object: The object's noun.

    Returns:
        A prompt such as "a dog to the left of a teddy bear".

    Raises:
        PromptError: The predicate is unknown or a noun is empty.
    """
    return f"{indefinite_article(subject)} {subject} {phrase(predicate)} {indefinite_article(object)} {object}"


def indefinite_article(noun: str) -> str:
    """Return the indefinite article of a noun.

    Args:
        noun: The noun, or any phrase that the article stands before.

    Returns:
        "a" or "an", by sound: "an hour", "a unicorn".

    Raises:
        PromptError: The noun is empty.
    """
    noun = noun.strip()
    if not noun:
        raise PromptError("an object without a name has no article")
    if _SOUNDS_VOWEL.match(noun):
        return "an"
    return "an" if noun[0].lower() in "aeiou" and not _SOUNDS_CONSONANT.match(noun) else "a"


def _find(prompt: str, noun: str, taken: Sequence[Span]) -> Span:
    """The span of the first whole-word occurrence of ``noun`` that overlaps none of ``taken``."""
    pattern = r"[\s-]+".join(re.escape(word) for word in noun.split())
    for match in re.finditer(rf"(?<!\w){pattern}(?!\w)", prompt, re.IGNORECASE):
        span = match.start(), vectors_end(prompt, match.group(), match.end())
        if all(span[1] <= other[0] or other[1] <= span[0] for other in taken):
            return span
    count = len(noun.split())
    words = re.findall(r"\w+(?:['\u2019-]\w+)*", prompt)
    runs = [" ".join(words[i : i + count]) for i in range(len(words) - count + 1)]
    nearest = get_close_matches(noun.lower(), [run.lower() for run in runs + words], n=1, cutoff=0.7)
    if noun.lower() in (run.lower() for run in runs):
        raise PromptError(
            f"{noun!r} does not occur a second time, apart from the other object, in the prompt {prompt!r}"
        )
    hint = f"; the nearest word is {nearest[0]!r}" if nearest else ""
    raise PromptError(f"{noun!r} is not in the prompt {prompt!r}{hint}; name the objects as the prompt does")


def phrase(predicate: str) -> str:
    """Return the words of a prompt for a predicate: "to the left of" for "left of"; the neutral "is" stays "is".

    Args:
        predicate: One of ``PREDICATES``, or "is".

    Returns:
        The words that connect subject and object.

    Raises:
        PromptError: The predicate is unknown.
    """
    if predicate in ("above", "below", NEUTRAL):
        return predicate
    if predicate in BASIC:
        return f"to the {predicate}"
    if predicate in DIAGONAL:
        vertical, horizontal = predicate.split(" ", 1)
        return f"{vertical} and to the {horizontal}"
    raise _unknown_predicate(predicate)


def predicate_from_text(text: str) -> str:
    """Return the predicate that a wording means: "above" for "On top of".

    Args:
        text: The wording, in any case, with or without hyphens.

    Returns:
        One of ``PREDICATES``.

    Raises:
        PromptError: The wording means no predicate; the message names the nearest one.
    """
    words = tuple(re.findall(r"[^\W_]+", text.lower()))
    predicate = _table().get(words)
    if predicate is None:
        raise _unknown_predicate(text)
    return predicate


def match_predicate(words: Sequence[str], start: int) -> tuple[str, int] | None:
    """Find the longest relation phrase that begins at ``words[start]``.

    Args:
        words: The words of a prompt in lower case, without hyphens.
        start: Index of the phrase's first word.

    Returns:
        The predicate and the phrase's number of words; None when no phrase begins there.
    """
    for length in range(min(_longest(), len(words) - start), 0, -1):
        predicate = _table().get(tuple(words[start : start + length]))
        if predicate is not None:
            return predicate, length
    return None


def _unknown_predicate(text: str) -> PromptError:
    """The error for an unknown predicate, with the nearest known one."""
    nearest = get_close_matches(text.lower().strip(), [" ".join(words) for words in _table()], n=1, cutoff=0.7)
    hint = f"; did you mean {_table()[tuple(nearest[0].split())]!r}?" if nearest else ";"
    return PromptError(f"unknown predicate {text.strip()!r}{hint} known: {', '.join(PREDICATES)}")


@cache
def _table() -> dict[tuple[str, ...], str]:
    """Every relation phrase, as a tuple of words, with its predicate."""
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
            # "over to the left of" means left of; "over and to the left of" is a diagonal.
            diagonals = [
                f"{word} {link}{form}"
                for word in _VERTICAL_PREPOSITIONS[vertical]
                for link in ("", "and ")
                for form in sides
                if link or word != "over"
            ]
            diagonals += [
                f"{lead}{word} {side}{tail} of"
                for word in _VERTICAL_ADJECTIVES[vertical]
                for lead in _LEADS
                for tail in ("", " side")
            ]
            diagonals += [
                f"{lead}{side}{of} and {word}"
                for word in _VERTICAL_PREPOSITIONS[vertical]
                for lead in _LEADS
                for of in ("", " of")
            ]
            for form in diagonals:
                table[form] = table[f"diagonally {form}"] = f"{vertical} {side} of"
    return {tuple(form.split()): predicate for form, predicate in table.items()}


def last_words() -> set[str]:
    """Return the words that relation phrases end with: "of", "above"."""
    return {words[-1] for words in _table()}


@cache
def _longest() -> int:
    """The number of words of the longest relation phrase."""
    return max(len(words) for words in _table())
