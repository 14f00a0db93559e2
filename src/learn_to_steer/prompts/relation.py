"""``Relation(subject, predicate, object)``: said in words, and found again in a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from learn_to_steer.errors import PromptError
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.prompts.phrases import PREDICATES, canonical, phrase, unknown_predicate

Span = tuple[int, int]
_ARTICLES = re.compile(r"^(?:a|an|the)\s+", re.IGNORECASE)
# Sound decides, not spelling: these begin with a consonant ("yoo", "w"), those with a silent h or a letter's name.
_SOUNDS_CONSONANT = re.compile(r"uni(?!n|m)|us[aeu]|ute|uku|uto|ufo\b|usb\b|eu|ewe|one\b|once\b", re.IGNORECASE)
_SOUNDS_VOWEL = re.compile(r"hour|honest|honou?r|heir|x-?ray", re.IGNORECASE)


@dataclass(frozen=True)
class Relation:
    """One spatial demand of a prompt: ``subject`` is ``predicate`` of ``object``.

    Objects are named as the prompt writes them, lower-cased and without articles, counts and adjectives.
    Spans are character offsets (start, end) of the noun in the prompt; they do not take part in comparison.
    Raises PromptError for an unknown predicate or an empty name.
    """

    subject: str
    predicate: str
    object: str
    subject_span: Span | None = field(default=None, compare=False)
    object_span: Span | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.predicate not in PREDICATES and self.predicate != NEUTRAL:
            raise unknown_predicate(self.predicate)
        if not self.subject.strip() or not self.object.strip():
            raise PromptError(f"a relation needs two named objects, got {self.as_list()}")

    def as_list(self) -> list[str]:
        """``[subject, predicate, object]``, the form written to JSON."""
        return [self.subject, self.predicate, self.object]

    @classmethod
    def from_text(cls, text: str) -> Relation:
        """Read "dog | left of | cat"; every synonym of a predicate is accepted ("to the left of", "on top of").

        Raises PromptError when there are not three parts, a name is empty or the predicate is unknown.
        """
        parts = [part.strip() for part in text.split("|")]
        if len(parts) != 3:
            raise PromptError(f'cannot read the relation {text!r}; write it as "dog | left of | cat"')
        subject, reference = (" ".join(_ARTICLES.sub("", part).lower().split()) for part in (parts[0], parts[2]))
        return cls(subject, canonical(parts[1]), reference)


def locate(prompt: str, relation: Relation) -> Relation:
    """The relation with its spans filled by whole-word, case-insensitive search.

    Each noun gets its first occurrence outside the other one's ("dog" is not the dog of "hot dog"); two equal
    nouns get the first and the second. Spans that are already there are kept.
    Raises PromptError when a noun is not in the prompt, naming a word that is near it.
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


def relation_prompt(subject: str, predicate: str, object: str) -> str:
    """The relation as a prompt: "a dog to the left of a teddy bear". Raises PromptError for an unknown predicate."""
    return f"{article(subject)} {subject} {phrase(predicate)} {article(object)} {object}"


def article(noun: str) -> str:
    """The indefinite article, "a" or "an", that ``noun`` sounds right with. Raises PromptError for an empty noun."""
    noun = noun.strip()
    if not noun:
        raise PromptError("an object without a name has no article")
    if _SOUNDS_VOWEL.match(noun):
        return "an"
    return "an" if noun[0].lower() in "aeiou" and not _SOUNDS_CONSONANT.match(noun) else "a"


def _find(prompt: str, noun: str, taken: Sequence[Span]) -> Span:
    """The first whole-word occurrence of ``noun`` that does not overlap a span already taken."""
    pattern = r"[\s-]+".join(re.escape(word) for word in noun.split())
    for found in re.finditer(rf"(?<!\w){pattern}(?!\w)", prompt, re.IGNORECASE):
        span = found.span()
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
