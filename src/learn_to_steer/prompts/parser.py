"""Stage 3 of the parser: find the two nouns that each relation phrase connects.

``parse`` runs all stages: ``tagging`` cuts the prompt into words, ``chunking`` groups them, and this file looks for the
reference (the noun after a relation) and the subject (usually a noun before it). When the subject is not clear, the
relation is left out: no relation is better than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.plain_text import has_lone_surrogate
from learn_to_steer.prompts import word_lists
from learn_to_steer.prompts.chunking import Chunk, chunk_prompt
from learn_to_steer.prompts.relation import Relation
from learn_to_steer.prompts.spacy_nouns import noun_phrases
from learn_to_steer.prompts.tagging import Tag

_POSSESSIVES = ("my", "your", "his", "her", "its", "our", "their")
_SIDE = re.compile(r"^(?:on|at|to)\b.*\b(?:side|top|bottom)\b|^(?:on|at|in) the (?:far )?(?:left|right) of$")
_VERTICAL = ("over", "under", "underneath", "beneath", "below", "above")


def parse(prompt: str, *, nlp: Callable[[str], Any] | None = None) -> tuple[Relation, ...]:
    """Find the spatial relations that a prompt asks for.

    A chain "A r1 B r2 C" gives (A, r1, B) and (B, r2, C). "A r1 B and C r2 D" gives two separate relations. In
    "A r1 B and r2 C" and "A r1 B is r2 C" the second relation is about A. "Above B hangs A" is (A, above, B).
    Relations that are not clear are left out, and so are those that need a pronoun resolved ("a cat with a dog on its
    left").

    Args:
        prompt: The prompt, in English.
        nlp: A loaded spaCy pipeline. Its noun chunks then replace the nouns that the built-in grammar finds.

    Returns:
        The relations in reading order, with the character spans of their nouns; empty when there are none.

    Raises:
        PromptError: The prompt is empty or not valid Unicode text, or the spaCy pipeline has no parser.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; describe the image, e.g. 'a dog to the left of a cat'")
    if has_lone_surrogate(prompt):
        raise PromptError("the prompt is not valid Unicode text (it holds half of a surrogate pair); write it anew")
    chunks = chunk_prompt(prompt, noun_phrases(nlp(prompt)) if nlp else None)
    attached = _Attachments()
    relations: list[Relation] = []
    for index, chunk in enumerate(chunks):
        if chunk.tag is not Tag.RELATION:
            continue
        reference = _find_reference(chunks, index)
        if reference is None:
            continue
        if not _is_location(chunks, index, reference):
            # "on the right of the picture" still describes the noun before it.
            chunks[index] = replace(chunk, tag=Tag.PREPOSITION, text="in")
            continue
        subject = _find_inverted_subject(chunks, index, reference)
        if subject is None:
            subject = _find_subject(chunks, index, attached)
        if subject is not None and (subject == reference or not _can_be_located(chunks[subject])):
            subject = None
        attached.add(subject, reference)
        if subject is not None:
            a, b = chunks[subject], chunks[reference]
            relations.append(Relation(a.text, chunk.text, b.text, a.span, b.span))
    return tuple(relations)


@dataclass
class _Attachments:
    """The relations read so far, as indices of chunks."""

    subjects: dict[int, int | None] = field(default_factory=dict)  # reference -> subject, None when there is none
    previous: tuple[int, int] | None = None  # subject and reference of the last complete relation

    def add(self, subject: int | None, reference: int) -> None:
        self.subjects[reference] = subject
        if subject is not None:
            self.previous = (subject, reference)


# The reference: the noun after the relation phrase.


def _find_reference(chunks: list[Chunk], relation: int) -> int | None:
    """Index of the noun right after the relation, skipping "the top of"; None when there is no noun."""
    at = relation + 1
    while at + 2 < len(chunks) and _is_part(chunks[at]) and chunks[at + 1].text == "of":
        at += 2
    return at if at < len(chunks) and chunks[at].tag is Tag.NOUN else None


def _is_part(chunk: Chunk) -> bool:
    """Whether the noun only names a part or an amount of another: "a pair of", "the top of"."""
    names = word_lists.PART_NOUNS
    return chunk.tag is Tag.NOUN and (chunk.text in names or chunk.text.removesuffix("s") in names)


def _is_location(chunks: list[Chunk], relation: int, reference: int) -> bool:
    """Whether the phrase really places something; false for "under construction" or "over 100 birds"."""
    phrase, noun = chunks[relation], chunks[reference]
    of = reference + 2 < len(chunks) and chunks[reference + 1].text == "of"
    if noun.text in word_lists.NOT_OBJECTS or (of and chunks[reference + 2].text in word_lists.NOT_OBJECTS):
        return False
    if noun.definite and noun.text in word_lists.FRAME_NOUNS and not of:
        return False
    if noun.text in word_lists.BODY_PARTS and noun.determiner in _POSSESSIVES:
        return False  # whose head it is depends on a pronoun
    if relation and chunks[relation - 1].text in word_lists.NAMING_VERBS:
        return False  # "a film called Under the Skin"
    if (
        _SIDE.match(phrase.wording)
        and noun.text in word_lists.NOUNS_WITH_SIDES_INSIDE
        and phrase.wording != "on top of"
    ):
        return False
    if phrase.wording == "at the bottom of" and noun.text in word_lists.HOLLOW_NOUNS:
        return False
    return phrase.wording not in _VERTICAL or _is_vertical_location(chunks, relation, noun)


def _is_vertical_location(chunks: list[Chunk], relation: int, noun: Chunk) -> bool:
    """As ``_is_location``, for the words that have other meanings: "over", "under", ..."""
    phrase = chunks[relation]
    if noun.determiner in word_lists.LARGE_NUMBERS or (noun.determiner.isdigit() and int(noun.determiner) > 9):
        return False
    counted = not noun.determiner or noun.determiner in word_lists.PLURAL_DETERMINERS
    if noun.text in word_lists.AMOUNT_NOUNS and counted:
        return False
    idiom = not noun.determiner and noun.text in word_lists.BARE_IDIOMS[phrase.text]
    if idiom and phrase.wording in ("over", "under"):
        return False
    if phrase.wording not in ("above", "below") and noun.text in word_lists.BODY_PARTS:
        return False
    before = chunks[relation - 1].text if relation else ""
    if phrase.wording == "over" and before in word_lists.VERBS_WITH_OVER:
        return False
    # "a sweater over a shirt" is worn over it, not above it.
    worn = before in word_lists.WORN_ITEMS and noun.text in word_lists.WORN_ITEMS
    return not (phrase.wording in ("over", "under") and worn)


def _can_be_located(chunk: Chunk) -> bool:
    """Whether a noun names something that has a place: not "the left", not "the night"."""
    framed = chunk.definite and chunk.text in word_lists.FRAME_NOUNS
    return chunk.text not in word_lists.NOT_OBJECTS and not framed


# The subject after the reference: "above the bench hangs a clock".


def _find_inverted_subject(chunks: list[Chunk], relation: int, reference: int) -> int | None:
    """Index of the subject when it follows: "above the bench hangs a clock", "under the table, a cat sleeps"."""
    start = relation
    while start > 0 and chunks[start - 1].tag is Tag.FILLER:
        start -= 1
    opens_sentence = start == 0 or chunks[start - 1].tag is Tag.STOP or chunks[start - 1].text == ";"
    opens_clause = opens_sentence or chunks[start - 1].tag is Tag.CONJUNCTION
    if not opens_clause and not _only_setting_before(chunks, start):
        return None
    at = reference + 1
    while at + 1 < len(chunks) and chunks[at].tag is Tag.PREPOSITION and chunks[at + 1].tag is Tag.NOUN:
        at += 2
    comma = at < len(chunks) and chunks[at].text == ","
    at += comma
    there = at < len(chunks) and chunks[at].text in ("there", "there's")
    at += there
    between = []
    while at < len(chunks) and chunks[at].tag is Tag.FILLER:
        between.append(chunks[at].text)
        at += 1
    if at >= len(chunks) or chunks[at].tag is not Tag.NOUN:
        return None
    if any(word in word_lists.RELATIVE_PRONOUNS for word in between):
        return None
    follows = there or (not comma and any(word_lists.is_finite_verb(word) for word in between))
    if follows and (chunks[at].determiner or there or between[-1:] in (["is"], ["are"])):
        return at
    # "above the stove, copper pans gleam", but not "above the stove, fantasy art"
    next_chunk = chunks[at + 1] if at + 1 < len(chunks) else chunks[at]
    acts = chunks[at].text.endswith("s") and next_chunk.tag is Tag.FILLER and word_lists.is_finite_verb(next_chunk.text)
    named = (chunks[at].determiner or acts) and chunks[at].text not in word_lists.IMAGE_NOUNS
    return at if opens_sentence and not between and named else None


def _only_setting_before(chunks: list[Chunk], start: int) -> bool:
    """Whether only a setting such as "in the kitchen" stands before ``start`` in its clause."""
    before = start - 1
    while before > 0 and chunks[before].tag is Tag.NOUN and chunks[before - 1].tag is Tag.PREPOSITION:
        before -= 2
    return before < start - 1 and (before < 0 or chunks[before].tag in (Tag.STOP, Tag.CONJUNCTION))


# The subject before the relation, when several nouns could be it.


def _find_subject(chunks: list[Chunk], relation: int, attached: _Attachments) -> int | None:
    """Index of the noun that the relation is about; None when there is none or it is not clear.

    "a cup of tea above a plate" is about the cup, "a hedgehog with an umbrella walks under a tree" about the hedgehog,
    "a room with a sofa to the left of a window" about the sofa. "a girl holding a balloon above a dog" could be about
    either, so it has no subject.
    """
    at = relation - 1
    while at >= 0 and chunks[at].tag in (Tag.FILLER, Tag.CONJUNCTION) and chunks[at].text != ";":
        at -= 1
    if at < 0 or chunks[at].tag is not Tag.NOUN:
        return None
    between = chunks[at + 1 : relation]
    joined = any(chunk.tag is Tag.CONJUNCTION for chunk in between)
    words = [chunk.text for chunk in between if chunk.tag is Tag.FILLER]
    listed = at > 0 and chunks[at - 1].tag is Tag.CONJUNCTION and not chunks[at].determiner
    if joined and (listed or chunks[at].text in word_lists.BODY_PARTS):
        return None  # "a girl, blue eyes, to the left of a boy"
    if any(word in word_lists.RELATIVE_PRONOUNS for word in words):
        return _find_head(chunks, at, attached, _Scope(near=True))
    sentence = any(word_lists.is_finite_verb(word) for word in words)
    scope = _Scope(far=sentence or joined, sentence=sentence, over=chunks[relation].wording == "over")
    head = _find_head(chunks, at, attached, scope)
    if joined and attached.previous is not None and head == attached.previous[1]:
        return attached.previous[0]
    return head


@dataclass(frozen=True)
class _Scope:
    """How far back to look for the subject."""

    near: bool = False  # the nearest noun is the subject
    far: bool = False  # the first noun of the clause is the subject
    sentence: bool = False  # as far, also beyond other relations: "a cat on top of a box is left of a dog"
    over: bool = False  # the relation is worded "over"


def _find_head(chunks: list[Chunk], noun: int, attached: _Attachments, scope: _Scope) -> int | None:
    """The noun that the phrase around ``noun`` is about; None when that is not clear, or there is none.

    Walks back from ``noun``: ``head`` is the candidate so far, ``at`` the chunk that the walk has reached.
    """
    head = at = noun
    while at > 0:
        before = chunks[at - 1]
        if before.tag is Tag.RELATION:
            if not scope.sentence:
                return head
            outer = attached.subjects.get(at)
            if outer is None or outer > at:
                return None
            head = at = outer
        elif before.tag is Tag.PREPOSITION or (before.tag is Tag.NEGATION and _is_without(chunks, at - 1)):
            step = _step_over_preposition(chunks, head, at, scope)
            if step is None or step == (head, at):
                return None if step is None else head
            head, at = step
        elif before.tag is Tag.FILLER:
            outer = _step_over_verb(chunks, at, attached, scope)
            if outer is None or outer == at:
                return None if outer is None else head
            head = at = outer
        elif before.tag is Tag.NOUN:
            # Two nouns side by side: "in the garden a dog", or an unknown verb between them.
            return head if _is_fronted(chunks, at - 1, attached) else None
        elif scope.sentence and before.tag is Tag.CONJUNCTION and _is_worn_too(chunks, head, at):
            at -= 2  # "a girl with pink hair and a uniform stands"
        else:
            return None if before.tag is Tag.NEGATION else head
    return head


def _is_worn_too(chunks: list[Chunk], head: int, at: int) -> bool:
    """Whether both nouns around a conjunction are clothes or parts of a body."""
    worn = word_lists.WORN_ITEMS | word_lists.BODY_PARTS
    placed = at > 2 and chunks[at - 3].tag is Tag.RELATION  # "left of a tie and the tie is above"
    return chunks[head].text in worn and at > 1 and chunks[at - 2].text in worn and not placed


def _is_without(chunks: list[Chunk], at: int) -> bool:
    """Whether the negation at ``at`` belongs to a prepositional phrase: "without a hat"."""
    return chunks[at].text == "without" or (at > 0 and chunks[at - 1].tag is Tag.PREPOSITION)


def _step_over_preposition(chunks: list[Chunk], head: int, at: int, scope: _Scope) -> tuple[int, int] | None:
    """Step out of a phrase such as "of tea".

    The result is the new ``head`` and ``at`` of ``_find_head``: unchanged to stop there, None when it is not clear.
    """
    first = at - 1
    while first > 0 and chunks[first - 1].tag is Tag.PREPOSITION:
        first -= 1
    preposition = chunks[first].text
    outer = first - 1
    while outer >= 0 and chunks[outer].tag is Tag.FILLER:
        outer -= 1
    between = chunks[outer + 1 : first]
    verb = any(word_lists.is_content_verb(chunk.text) for chunk in between)
    worn = chunks[head].text in word_lists.WORN_ITEMS | word_lists.BODY_PARTS
    stay = (head, at)
    if scope.far and outer > 0 and chunks[outer].text == "," and chunks[outer - 1].tag is Tag.NOUN:
        if preposition == "with" and not verb and not worn:
            return None
        outer -= 1  # "a tart, dusted with sugar, to the left of"
    if outer < 0 or chunks[outer].tag is not Tag.NOUN:
        if preposition == "with":
            unattached = chunks[head].text in word_lists.WORN_ITEMS and outer >= 0
            return None if unattached else stay  # ", with an armchair to the left of"
        return stay if preposition == "of" else None  # "on the table below a lamp" has no subject
    if preposition == "of" and (_is_part(chunks[outer]) or chunks[outer].text in word_lists.IMAGE_NOUNS):
        return head, outer
    if verb and any(chunk.text in word_lists.PLACING_VERBS for chunk in between):
        return None
    if preposition in word_lists.BESIDE_PREPOSITIONS and not (scope.far or verb):
        return stay
    if preposition == "with" and not (scope.sentence or verb):
        if chunks[outer].text in word_lists.PLACE_NOUNS:
            return None if scope.far else stay
        if not scope.far and chunks[head].determiner and not worn:
            return None  # but "a vase with sunflowers" is about the vase
    if scope.near and preposition != "of":
        return stay
    return outer, outer


def _step_over_verb(chunks: list[Chunk], at: int, attached: _Attachments, scope: _Scope) -> int | None:
    """Index of the noun whose verb governs the noun at ``at``: ``at`` itself to stop there, None when not clear."""
    outer = at - 1
    while outer >= 0 and chunks[outer].tag is Tag.FILLER:
        outer -= 1
    words = [chunk.text for chunk in chunks[outer + 1 : at]]
    aside = scope.sentence and words[:1] and words[0] in word_lists.RELATIVE_PRONOUNS
    if aside and outer >= 0 and chunks[outer].text == ",":
        outer -= 1  # "the robot, which holds a flower, is to the left of"
    if outer < 0 or chunks[outer].tag is not Tag.NOUN:
        return at
    if not any(word_lists.is_content_verb(word) for word in words) or _is_fronted(chunks, outer, attached):
        return at
    if any(word in word_lists.CONTAINING_VERBS for word in words) and not scope.sentence:
        return at
    if scope.near or words[-1] in word_lists.RELATIVE_PRONOUNS or chunks[outer].text in word_lists.IMAGE_NOUNS:
        return at
    if any(word in word_lists.PLACING_VERBS for word in words) and not scope.far:
        return at
    carried = any(word in word_lists.CARRYING_VERBS for word in words)
    moves = any(word in word_lists.MOVING_VERBS for word in words)
    if not scope.far and (carried or (scope.over and not moves)):
        return None
    return outer


def _is_fronted(chunks: list[Chunk], noun: int, attached: _Attachments) -> bool:
    """Whether the noun belongs to a phrase that opens the sentence: "in the garden", "above the bench"."""
    if noun in attached.subjects:
        subject = attached.subjects[noun]
        return subject is None or subject > noun
    return noun > 0 and chunks[noun - 1].tag is Tag.PREPOSITION and _find_head(chunks, noun, attached, _Scope()) is None
