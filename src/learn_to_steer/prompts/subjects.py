"""Which noun a relation is about, where several could be it.

When that is not clear, there is no subject: no relation is better than a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.chunking import Chunk
from learn_to_steer.prompts.tagging import Tag


@dataclass
class Attachments:
    """The relations read so far, as indices of chunks."""

    subjects: dict[int, int | None] = field(default_factory=dict)  # reference -> subject, None when there is none
    previous: tuple[int, int] | None = None  # subject and reference of the last complete relation


# The subject after the reference: "above the bench hangs a clock".


def find_inverted_subject(chunks: list[Chunk], relation: int, reference: int) -> int | None:
    """Index of the subject when it follows: "above the bench hangs a clock", "under the table, a cat sleeps"."""
    start = relation
    while start > 0 and chunks[start - 1].tag is Tag.FILLER:
        start -= 1
    clause = _before_setting(chunks, start)
    if clause == start and start > 0 and chunks[start - 1].text == ",":
        earlier = _before_setting(chunks, start - 1)
        clause = earlier if earlier < start - 1 else start  # "at night, above the harbour, a balloon drifts"
    # "late at night above the bridge, drones hover", but "in the gallery above the stage" places the gallery
    settings = noun_lists.NOT_OBJECTS | noun_lists.FRAME_NOUNS
    timed = all(chunk.text in settings for chunk in chunks[clause:start] if chunk.tag is Tag.NOUN)
    start, placed = clause, clause < start and not timed
    opens_sentence = start == 0 or chunks[start - 1].text in word_lists.STOPS or chunks[start - 1].text in (";", ":")
    if not opens_sentence and chunks[start - 1].tag is not Tag.CONJUNCTION:
        return None
    at = _phrase_end(chunks, reference)
    comma = at < len(chunks) and chunks[at].text == ","
    at += comma
    if comma and at < len(chunks) and _is_relative(chunks[at]):  # "above the lake, whose surface ..., drifts a lantern"
        while at < len(chunks) and chunks[at].text != ",":
            at += 1
        at, comma = at + 1, False
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
        return _whole(chunks, at)
    # "a bowl, left of the bowl a spoon"
    end = _phrase_end(chunks, at)
    closes = end == len(chunks) or chunks[end].tag in (Tag.STOP, Tag.CONJUNCTION)
    if not comma and not between and closes and chunks[at].determiner in word_lists.COUNTING_DETERMINERS:
        return _whole(chunks, at)
    # "above the stove, copper pans gleam", but not "above the stove, fantasy art"
    next_chunk = chunks[at + 1] if at + 1 < len(chunks) else chunks[at]
    acts = next_chunk.tag is Tag.FILLER and word_lists.is_finite_verb(next_chunk.text)
    acts = acts and (chunks[at].text.endswith("s") or chunks[at].determiner != "")
    named = (chunks[at].determiner or acts) and chunks[at].text not in noun_lists.IMAGE_NOUNS
    if not opens_sentence:  # "and above the ship an albatross glides"
        named = named and not comma and acts and chunks[at].determiner != ""
    return _whole(chunks, at) if named and not between and not placed else None


def _whole(chunks: list[Chunk], noun: int) -> int:
    """The noun that "a row of ..." at ``noun`` is about."""
    while noun + 2 < len(chunks) and chunks[noun + 1].text == "of" and is_part(chunks[noun], chunks[noun + 2]):
        noun += 2
    return noun


def _before_setting(chunks: list[Chunk], start: int) -> int:
    """Where the clause begins when only a setting such as "late at night" stands before ``start``."""
    before = start - 1
    while before > 0 and chunks[before].tag is Tag.NOUN and chunks[before - 1].tag is Tag.PREPOSITION:
        before -= 2
    while before < start - 1 and before >= 0 and chunks[before].tag is Tag.FILLER:
        before -= 1
    opens = before < 0 or chunks[before].tag in (Tag.STOP, Tag.CONJUNCTION)
    return before + 1 if opens else start


def _is_relative(chunk: Chunk) -> bool:
    """Whether a relative clause begins with this."""
    return chunk.determiner == "whose" or chunk.text in word_lists.RELATIVE_PRONOUNS


def _phrase_end(chunks: list[Chunk], noun: int) -> int:
    """The chunk after a noun and what describes it: "a table made of oak in the hall"."""
    at = noun + 1
    while at + 1 < len(chunks):
        made = chunks[at].tag is Tag.FILLER and chunks[at].text in word_lists.DESCRIBING_PARTICIPLES
        first = at + made
        if (
            first + 1 >= len(chunks)
            or chunks[first].tag is not Tag.PREPOSITION
            or chunks[first + 1].tag is not Tag.NOUN
        ):
            break
        at = first + 2
    return at


# The subject before the relation, when several nouns could be it.


def find_subject(chunks: list[Chunk], relation: int, attached: Attachments) -> int | None:
    """Index of the noun that the relation is about; None when there is none or it is not clear.

    "a cup of tea above a plate" is about the cup, "a hedgehog with an umbrella walks under a tree" about the hedgehog,
    "a room with a sofa to the left of a window" about the sofa. "a girl holding a balloon above a dog" could be about
    either, so it has no subject.

    Args:
        chunks: The chunks of a sentence.
        relation: Index of the relation.
        attached: The relations before it.
    """
    at = relation - 1
    if at > 0 and chunks[at].tag is Tag.PREPOSITION and chunks[at].text in word_lists.PARTICLES:
        at -= 1
    while at >= 0 and chunks[at].tag in (Tag.FILLER, Tag.CONJUNCTION) and chunks[at].text != ";":
        at -= 1
    if at < 0 or chunks[at].tag is not Tag.NOUN:
        return None
    between = chunks[at + 1 : relation]
    aside = _before_aside(chunks, at, between)
    if aside is not None:
        at = aside
        between = [chunk for chunk in between if chunk.tag is Tag.FILLER]
    joined = any(chunk.tag is Tag.CONJUNCTION for chunk in between)
    words = [chunk.text for chunk in between if chunk.tag is Tag.FILLER]
    listed = at > 0 and chunks[at - 1].tag is Tag.CONJUNCTION and not chunks[at].determiner
    if joined and (listed or chunks[at].text in noun_lists.BODY_PARTS):
        return None  # "a girl, blue eyes, to the left of a boy"
    if any(word in word_lists.RELATIVE_PRONOUNS for word in words):
        return _find_head(chunks, at, attached, _Scope(near=True))
    sentence = any(word_lists.is_finite_verb(word) for word in words)
    after = chunks[relation + 1 : relation + 2]
    part = chunks[relation].text in ("above", "below") and any(chunk.definite for chunk in after)
    over = chunks[relation].wording == "over"
    mounted = any(word in word_lists.MOUNTING_PARTICIPLES for word in words)
    hung = "hangs" in words or (mounted and any(word in word_lists.COPULAS for word in words))
    scope = _Scope(far=sentence or joined, sentence=sentence, over=over, part=part, hung=hung)
    head = _find_head(chunks, at, attached, scope)
    if joined and attached.previous is not None and head == attached.previous[1]:
        return attached.previous[0]
    return head


def _before_aside(chunks: list[Chunk], noun: int, between: list[Chunk]) -> int | None:
    """Index of the noun before an aside: "the dog, a terrier with one ear, lies below"; None without one."""
    if [chunk.text for chunk in between if chunk.tag is Tag.CONJUNCTION] != [","]:
        return None
    comma = next(index for index, chunk in enumerate(between) if chunk.tag is Tag.CONJUNCTION)
    if not any(word_lists.is_finite_verb(chunk.text) for chunk in between[comma:]):
        return None
    at = noun
    while at > 0 and chunks[at].tag is not Tag.STOP and chunks[at].text not in (",", ";", ":", "and", "while", "as"):
        at -= 1
    if at < 1 or chunks[at].text != "," or chunks[at - 1].tag is not Tag.NOUN:
        return None
    aside = chunks[at + 1]
    first = at - 1
    while first > 1 and chunks[first - 1].tag is Tag.PREPOSITION and chunks[first - 2].tag is Tag.NOUN:
        first -= 2
    opens = first < 1 or chunks[first - 1].tag in (Tag.STOP, Tag.CONJUNCTION, Tag.FILLER)
    described = aside.tag in (Tag.FILLER, Tag.DETERMINER) or aside.text in ("with", "in") or aside.tag is Tag.NOUN
    return at - 1 if opens and described else None


@dataclass(frozen=True)
class _Scope:
    """How far back to look for the subject."""

    near: bool = False  # the nearest noun is the subject
    far: bool = False  # the first noun of the clause is the subject
    sentence: bool = False  # as far, also beyond other relations: "a cat on top of a box is left of a dog"
    over: bool = False  # the relation is worded "over"
    hung: bool = False  # a picture is the subject, not what it shows: "a painting of a dog hangs"
    part: bool = False  # the reference may be a part of the first noun: "a piano with a book above the keys"


def _find_head(chunks: list[Chunk], noun: int, attached: Attachments, scope: _Scope) -> int | None:
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
            scope = _widen(scope, chunks[step[1] + 1 : at])
            head, at = step
        elif before.tag is Tag.FILLER:
            outer = _step_over_verb(chunks, at, attached, scope)
            if outer is None or outer == at:
                return None if outer is None else head
            scope = _widen(scope, chunks[outer + 1 : at])
            head = at = outer
        elif before.tag is Tag.NOUN:
            # Two nouns side by side: "in the garden a dog", or an unknown verb between them.
            return head if _is_fronted(chunks, at - 1, attached) else None
        elif scope.sentence and before.tag is Tag.CONJUNCTION and _is_worn_too(chunks, head, at):
            at -= 2  # "a girl with pink hair and a uniform stands"
        else:
            return None if before.tag is Tag.NEGATION else head
    return head


def _widen(scope: _Scope, passed: list[Chunk]) -> _Scope:
    """The scope before a finite verb: the subject of the whole clause."""
    finite = any(chunk.tag is Tag.FILLER and word_lists.is_finite_verb(chunk.text) for chunk in passed)
    relative = any(chunk.text in word_lists.RELATIVE_PRONOUNS for chunk in passed)
    return replace(scope, far=True, sentence=True) if finite and not relative else scope


def _is_worn_too(chunks: list[Chunk], head: int, at: int) -> bool:
    """Whether both nouns around a conjunction are clothes or parts of a body."""
    worn = noun_lists.WORN_ITEMS | noun_lists.BODY_PARTS
    placed = at > 2 and chunks[at - 3].tag is Tag.RELATION  # "left of a tie and the tie is above"
    return chunks[head].text in worn and at > 1 and chunks[at - 2].text in worn and not placed


def _is_without(chunks: list[Chunk], at: int) -> bool:
    """Whether the negation at ``at`` belongs to a prepositional phrase: "without a hat"."""
    inside = at > 0 and (chunks[at - 1].tag is Tag.PREPOSITION or chunks[at - 1].text in word_lists.CONTAINING_VERBS)
    return chunks[at].text == "without" or inside


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
    worn = chunks[head].text in noun_lists.WORN_ITEMS | noun_lists.BODY_PARTS | noun_lists.COMPONENTS
    stay = (head, at)
    if scope.far and outer > 0 and chunks[outer].text == "," and chunks[outer - 1].tag is Tag.NOUN:
        if preposition == "with" and not verb and not worn:
            return None
        outer -= 1  # "a tart, dusted with sugar, to the left of"
    if "except" in (chunks[first].text, chunks[at - 1].text):
        return stay  # "bare except for a piano"
    if outer < 0 or chunks[outer].tag is not Tag.NOUN:
        if preposition == "with":
            unattached = chunks[head].text in noun_lists.WORN_ITEMS and outer >= 0
            return None if unattached else stay  # ", with an armchair to the left of"
        return stay if preposition == "of" else None  # "on the table below a lamp" has no subject
    shown = chunks[outer].text in noun_lists.IMAGE_NOUNS and not scope.hung
    if preposition == "of" and (shown or is_part(chunks[outer], chunks[head])):
        return head, outer
    if verb and any(chunk.text in word_lists.PLACING_VERBS for chunk in between):
        return None
    if preposition == "at" and not scope.far and _points(chunks, first):
        return stay
    if preposition in word_lists.BESIDE_PREPOSITIONS and not (scope.far or verb):
        return stay
    if preposition == "with" and not (scope.sentence or verb):
        if chunks[outer].text in noun_lists.PLACE_NOUNS or chunks[outer].text in noun_lists.IMAGE_NOUNS:
            return None if scope.far else stay
        if scope.part and chunks[head].determiner and not worn:
            return stay  # "a piano with a book above the keys"
        if not scope.far and chunks[head].determiner and not worn:
            return None  # but "a vase with sunflowers" is about the vase
    if scope.near and preposition != "of":
        return stay
    return outer, outer


def _points(chunks: list[Chunk], before: int) -> bool:
    """Whether the clause before a phrase has a verb of pointing: "the dog looks through the fence at a cat"."""
    for chunk in reversed(chunks[:before]):
        if chunk.tag in (Tag.STOP, Tag.CONJUNCTION, Tag.RELATION):
            break
        if chunk.text in word_lists.POINTING_VERBS:
            return True
    return False


def _step_over_verb(chunks: list[Chunk], at: int, attached: Attachments, scope: _Scope) -> int | None:
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
    doing = "having" in words and any(word in word_lists.COPULAS for word in words)  # "is having a picnic"
    if any(word in word_lists.CONTAINING_VERBS for word in words) and not scope.sentence and not doing:
        return at
    if scope.near or words[-1] in word_lists.RELATIVE_PRONOUNS or chunks[outer].text in noun_lists.IMAGE_NOUNS:
        return at
    if any(word in word_lists.PLACING_VERBS for word in words) and not scope.far:
        return at
    carried = any(word in word_lists.CARRYING_VERBS for word in words)
    moves = any(word in word_lists.MOVING_VERBS for word in words)
    if not scope.far and (carried or (scope.over and not moves)):
        return None
    return outer


def is_part(chunk: Chunk, whole: Chunk) -> bool:
    """Return whether a noun only names a part or an amount of another: "a pair of skis", "the top of a hill"."""
    name = chunk.text if chunk.text in noun_lists.PART_NOUNS else chunk.text.removesuffix("s")
    if chunk.tag is not Tag.NOUN or name not in noun_lists.PART_NOUNS:
        return False
    several = whole.text.endswith("s") or whole.text in noun_lists.IRREGULAR_PLURALS
    return name not in noun_lists.GATHERINGS or several


def _is_fronted(chunks: list[Chunk], noun: int, attached: Attachments) -> bool:
    """Whether the noun belongs to a phrase that opens the sentence: "in the garden", "above the bench"."""
    if noun in attached.subjects:
        subject = attached.subjects[noun]
        return subject is None or subject > noun
    return noun > 0 and chunks[noun - 1].tag is Tag.PREPOSITION and _find_head(chunks, noun, attached, _Scope()) is None
