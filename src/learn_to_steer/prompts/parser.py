"""Stage 3 of the parser: find the nouns that each relation phrase connects.

``analyse`` runs all stages: ``tagging`` cuts the prompt into words, ``chunking`` groups them, and this file looks for
the reference (the noun after a relation) and decides whether the phrase places anything. ``subjects`` finds the noun
that a relation is about where several could be it, ``coordination`` what is joined to both by "and".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.chunking import Chunk, chunk_words
from learn_to_steer.prompts.coordination import joined_after, joined_before
from learn_to_steer.prompts.markup import Span
from learn_to_steer.prompts.pronouns import POSSESSIVES, SIDES, find_pair
from learn_to_steer.prompts.relation import Relation
from learn_to_steer.prompts.spacy_tagger import words_no_nouns
from learn_to_steer.prompts.subjects import Attachments, find_inverted_subject, find_subject, is_part
from learn_to_steer.prompts.tagging import Tag, TaggedPrompt
from learn_to_steer.prompts.token_alignment import require_characters

LONG_PROMPT = 60
"""Number of words beyond which the relations of a prompt should be checked by a reader."""

# Why a relation phrase was passed over.
NO_OBJECT = "no object"
NO_SUBJECT = "no subject"
UNCLEAR = "unclear subject"
NEGATED = "negated"
PRONOUN = "pronoun"
NOT_PLACED = "cannot be placed"
NOT_A_NOUN = "not a noun"
INSIDE = "in or on it"
OTHER_MEANING = "no place"

_OWNERS = ("my", "your", "his", "her", "its", "our", "their")
_BETWEEN_SIDES = re.compile(r"^(?:on|at|to)\b.*\bside\b|^(?:on|at|in) the (?:\w+ )?(?:left|right) of$")
_AT_END = re.compile(r"^(?:at the top|(?:at|on) the bottom) of$")
_VERTICAL = ("over", "under", "underneath", "beneath", "below", "above")
# In chunks. Longer sentences are cut, so that reading takes a time in proportion to the prompt: from the first number
# on at the next "and" or comma, at the second number anywhere.
_LONG_SENTENCE, _LONGEST_SENTENCE = 80, 120


@dataclass(frozen=True)
class PassedOver:
    """A relation phrase that gave no relation.

    Attributes:
        wording: The phrase as the prompt words it, in lower case.
        span: Its characters in the prompt.
        reason: "no object", "no subject", "unclear subject", "negated", "pronoun", "cannot be placed" (light, a gaze),
            "not a noun" (says the tagger), "in or on it" ("at the bottom of the drawer") or "no place" ("over coffee").
        noun: The noun that the reason is about; empty without one.
    """

    wording: str
    span: Span
    reason: str
    noun: str = ""


@dataclass(frozen=True)
class Analysis:
    """What was found in a prompt.

    Attributes:
        relations: The relations in reading order.
        passed_over: Relation phrases that gave none, and why.
        words: The number of words of the prompt.
    """

    relations: tuple[Relation, ...]
    passed_over: tuple[PassedOver, ...]
    words: int

    @property
    def warning(self) -> str:
        """Why the relations should be checked by a reader: the prompt is long; empty otherwise."""
        if self.words <= LONG_PROMPT or not self.relations:
            return ""
        listed = "; ".join(" | ".join(relation.as_list()) for relation in self.relations)
        return f"the prompt has {self.words} words, and in long text some relations are misread. Found: {listed}"


def parse(prompt: str, *, nlp: Any = None, tokens: Collection[str] = ()) -> tuple[Relation, ...]:
    """Find the spatial relations that a prompt asks for.

    A chain "A r1 B r2 C" gives (A, r1, B) and (B, r2, C). "A r1 B and C r2 D" gives two separate relations. In
    "A r1 B and r2 C" and "A r1 B is r2 C" the second relation is about A. "Above B hangs A" is (A, above, B). Joined
    nouns give every pair: "A and B r C", "A r B and C". Relations that are not clear are left out. A pronoun is
    resolved only beside its noun ("a cat with a dog on its left").

    Args:
        prompt: The prompt, in English, with or without the markup of user interfaces.
        nlp: A loaded spaCy pipeline. Its tagger then says which words are no nouns.
        tokens: Tokens that were added to the tokenizer of the model, for example by textual inversion. Each is a word,
            with all its vectors ("<toy> <toy>_1").

    Returns:
        The relations in reading order, with the character spans of their nouns; empty when there are none.

    Raises:
        PromptError: The prompt is empty or not valid Unicode text, or the spaCy pipeline has no tagger.
    """
    return analyse(prompt, nlp=nlp, tokens=tokens).relations


def analyse(prompt: str, *, nlp: Any = None, tokens: Collection[str] = ()) -> Analysis:
    """Find the relations of a prompt as ``parse`` does, and what was passed over.

    Args:
        prompt: As for ``parse``.
        nlp: As for ``parse``.
        tokens: As for ``parse``.

    Returns:
        The relations, and the relation phrases that gave none.

    Raises:
        PromptError: As for ``parse``.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; describe the image, e.g. 'a dog to the left of a cat'")
    require_characters(prompt)
    tagged = TaggedPrompt(prompt, tokens)
    if nlp is not None:
        tagged.not_nouns = words_no_nouns(tagged, nlp)
    relations: list[Relation] = []
    passed_over: list[PassedOver] = []
    for sentence in _sentences(chunk_words(tagged)):
        _read(sentence, relations, passed_over)
    return Analysis(
        tuple(relations), tuple(passed_over), sum(word[0].isalnum() for word in tagged.texts) + len(tagged.names)
    )


def _sentences(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    """Cut the chunks at the ends of sentences, and very long sentences at an "and" or a comma."""
    start = 0
    for index, chunk in enumerate(chunks):
        length = index - start
        joint = length >= _LONG_SENTENCE and chunk.tag is Tag.CONJUNCTION
        ends = joint or chunk.text in word_lists.SENTENCE_ENDS or length >= _LONGEST_SENTENCE
        if ends or index + 1 == len(chunks):
            yield chunks[start : index + 1]
            start = index + 1


def _read(chunks: list[Chunk], relations: list[Relation], passed_over: list[PassedOver]) -> None:
    """Add the relations of a sentence, and what is passed over in it."""
    attached = Attachments()
    for index, chunk in enumerate(chunks):
        if chunk.tag is Tag.NOUN and chunk.text in SIDES and chunk.determiner in POSSESSIVES and index > 2:
            pair = find_pair(chunks, index - 1, chunk.determiner)  # "with a dog on its left"
            if pair and all(_can_be_placed(chunks[noun]) for noun in pair):
                relations.append(_relation(chunks[pair[0]], SIDES[chunk.text], chunks[pair[1]]))
        if chunk.tag is not Tag.RELATION:
            continue
        pairs, reason, noun = _pairs(chunks, index, attached)
        for subject, reference in pairs:
            relations.append(_relation(chunks[subject], chunk.text, chunks[reference]))
        if not pairs:
            passed_over.append(PassedOver(chunk.wording, chunk.span, reason, noun))


def _relation(subject: Chunk, predicate: str, reference: Chunk) -> Relation:
    return Relation(subject.text, predicate, reference.text, subject.span, reference.span)


def _pairs(chunks: list[Chunk], index: int, attached: Attachments) -> tuple[list[tuple[int, int]], str, str]:
    """The pairs of nouns that a relation connects; without any, the reason and the noun that it is about."""
    reference = _find_reference(chunks, index) or _find_shared_reference(chunks, index)
    if reference is None:
        after = chunks[index + 1] if index + 1 < len(chunks) else None
        if after is None or after.tag is not Tag.STOP or after.text in word_lists.SENTENCE_ENDS:
            return [], NO_OBJECT, ""
        pair = find_pair(chunks, index, after.text)
        clear = pair is not None and all(_can_be_placed(chunks[noun]) for noun in pair)
        return [pair] if pair and clear else [], PRONOUN, after.text
    if reason := _why_no_location(chunks, index, reference):
        # "on the right of the picture" still describes the noun before it.
        chunks[index] = replace(chunks[index], tag=Tag.PREPOSITION, text="in")
        return [], reason, chunks[reference].text
    inverted = None
    if index == 1 and chunks[0].tag is Tag.NOUN:
        subject: int | None = 0
    else:
        inverted = find_inverted_subject(chunks, index, reference)
        subject = find_subject(chunks, index, attached) if inverted is None else inverted
    reason, noun = "", ""
    if subject is None or subject == reference:
        subject, reason = None, _why_no_subject(chunks, index)
    elif not _can_be_placed(chunks[subject or 0], chunks[index].wording):
        subject, reason, noun = None, NOT_PLACED, chunks[subject or 0].text
    elif _is_negated(chunks, subject or 0):
        subject, reason, noun = None, NEGATED, chunks[subject or 0].text
    attached.subjects[reference] = subject
    if subject is not None:
        attached.previous = (subject, reference)
    if subject is None:
        return [], reason, noun
    subjects, references = [subject], [reference]
    if any(chunk.tag is Tag.CONJUNCTION for chunk in chunks):
        if inverted is None:
            subjects = joined_before(chunks, subject, _can_be_placed)
            references = joined_after(chunks, reference, _can_be_placed)
        else:
            comma = any(chunk.text == "," for chunk in chunks[reference:subject])
            subjects = joined_after(chunks, subject, _can_be_placed, before_verb=comma)
    pairs = [(a, b) for a in subjects for b in references if a != b]
    for noun_index in dict.fromkeys(index for pair in pairs for index in pair):
        if chunks[noun_index].doubted:
            pairs = [pair for pair in pairs if noun_index not in pair]
            reason, noun = NOT_A_NOUN, chunks[noun_index].text
    return pairs, reason, noun


def _why_no_subject(chunks: list[Chunk], relation: int) -> str:
    """The reason why a relation has no subject."""
    clause = []
    for chunk in reversed(chunks[:relation]):
        if chunk.tag is Tag.STOP:
            return NO_SUBJECT if chunk.text in word_lists.SENTENCE_ENDS else PRONOUN
        if chunk.tag is Tag.NEGATION:
            return NEGATED
        clause.append(chunk)
    return UNCLEAR if any(chunk.tag is Tag.NOUN for chunk in clause) else NO_SUBJECT


def _is_negated(chunks: list[Chunk], subject: int) -> bool:
    """Whether a negation holds for the subject too: "no birds or planes above", but not "no people, planes above"."""
    at = subject
    joined = subject > 0 and chunks[subject - 1].text in ("or", "nor", "and")
    while joined and at > 0 and not chunks[at].determiner and chunks[at - 1].tag is Tag.CONJUNCTION:
        at -= 1
        while at > 0 and chunks[at].text in ("or", "nor", "and", ","):
            at -= 1
        if chunks[at].tag is not Tag.NOUN:
            return False
    return at > 0 and chunks[at - 1].tag is Tag.NEGATION and chunks[at - 1].text != "not"


# The reference: the noun after the relation phrase.


def _find_reference(chunks: list[Chunk], relation: int) -> int | None:
    """Index of the noun right after the relation, skipping "the top of"; None when there is no noun."""
    at = relation + 1
    while at + 2 < len(chunks) and is_part(chunks[at], chunks[at + 2]) and chunks[at + 1].text == "of":
        at += 2
    return at if at < len(chunks) and chunks[at].tag is Tag.NOUN else None


def _find_shared_reference(chunks: list[Chunk], relation: int) -> int | None:
    """Index of the noun that two relations share: "a fork to the left of and a knife to the right of a plate"."""
    joined = [chunk.tag for chunk in chunks[relation + 1 : relation + 4]] == [Tag.CONJUNCTION, Tag.NOUN, Tag.RELATION]
    shared = joined and chunks[relation].wording.endswith(" of") and chunks[relation + 1].text in ("and", "or", "but")
    return _find_reference(chunks, relation + 3) if shared else None


# Whether the phrase really places something; not so "under construction" and "over 100 birds".


def _why_no_location(chunks: list[Chunk], relation: int, reference: int) -> str:
    """The reason why the phrase places nothing; empty when it does."""
    wording, noun = chunks[relation].wording, chunks[reference]
    of = reference + 2 < len(chunks) and chunks[reference + 1].text == "of"
    inner = chunks[reference + 2] if of else noun
    if noun.definite and noun.text in noun_lists.FRAME_NOUNS and not _hangs(noun, wording):
        if not of:
            return INSIDE
    elif not _can_be_placed(noun, wording) or (inner is not noun and inner.text in noun_lists.UNPLACEABLE):
        return NOT_PLACED
    if noun.text in noun_lists.BODY_PARTS and noun.determiner in _OWNERS:
        return PRONOUN  # whose head it is depends on a pronoun
    if relation and chunks[relation - 1].text in word_lists.NAMING_VERBS:
        return OTHER_MEANING  # "a film called Under the Skin"
    if _is_inside(wording, noun):
        return INSIDE
    if (
        relation > 1
        and chunks[relation - 2].text in word_lists.CASTING_VERBS
        and not _can_be_placed(chunks[relation - 1])
    ):
        return OTHER_MEANING  # "the lamp casts a glow over the desk"
    if wording in _VERTICAL and not _is_vertical_location(chunks, relation, noun):
        return OTHER_MEANING
    return ""


def _is_inside(wording: str, noun: Chunk) -> bool:
    """Whether the phrase says where in or on the noun something is: "at the bottom of the drawer"."""
    name = noun.text.split()[-1]
    if wording in ("under", "underneath", "beneath"):
        return name in noun_lists.WATERS and (noun.definite or not noun.determiner)
    if _BETWEEN_SIDES.match(wording):
        if "side" in wording and name in noun_lists.SURFACES_WITH_SIDES:
            return True
        furniture = wording.startswith("on") and "side" in wording and name in noun_lists.FURNITURE_WITH_SIDES
        return furniture or name in noun_lists.PLACES_WITH_SIDES
    if _AT_END.match(wording):
        hollow = wording.startswith("at the bottom") and name in noun_lists.HOLLOW_NOUNS
        ended = wording.startswith("at") and name in noun_lists.SURFACES_WITH_SIDES | noun_lists.PLACES_WITH_ENDS
        return hollow or ended or name in noun_lists.PLACES_WITH_SIDES
    return False


def _is_vertical_location(chunks: list[Chunk], relation: int, noun: Chunk) -> bool:
    """Whether "over", "under", ... place something; they have other meanings."""
    phrase = chunks[relation]
    if noun.determiner in word_lists.LARGE_NUMBERS or (noun.determiner.isdecimal() and int(noun.determiner) > 9):
        return False
    counted = not noun.determiner or noun.determiner in word_lists.PLURAL_DETERMINERS
    if noun.text in noun_lists.AMOUNT_NOUNS and counted:
        return False
    idiom = not noun.determiner and noun.text in noun_lists.BARE_IDIOMS[phrase.text]
    if idiom and phrase.wording in ("over", "under"):
        return False
    if phrase.wording not in ("above", "below") and noun.text in noun_lists.BODY_PARTS:
        return False
    before = relation - 1
    while before > 0 and chunks[before].tag is Tag.FILLER and chunks[before].text.endswith("ly"):
        before -= 1
    if before > 0 and chunks[before].text in word_lists.PARTICLES:
        before -= 1
    word = chunks[before].text if relation else ""
    if phrase.wording == "over" and word in word_lists.VERBS_WITH_OVER:
        return False
    # "a sweater over a shirt" is worn over it, not above it.
    worn = word in noun_lists.WORN_ITEMS and noun.text in noun_lists.WORN_ITEMS - {"umbrella"}
    return not (phrase.wording in ("over", "under") and worn)


def _hangs(noun: Chunk, wording: str) -> bool:
    """Whether the noun is a picture on a wall, not the image itself: "above the picture"."""
    return wording in _VERTICAL and noun.text in noun_lists.HUNG_NOUNS


def _can_be_placed(chunk: Chunk, wording: str = "") -> bool:
    """Whether a noun names something that has a place: not "the left", not "the night", not a gaze."""
    if chunk.definite and chunk.text in noun_lists.FRAME_NOUNS and not _hangs(chunk, wording):
        return False
    head = chunk.text if " " not in chunk.text else chunk.text.split()[-1]
    if head in noun_lists.LIGHTS:
        return " " in chunk.text or (chunk.modifier != "" and chunk.modifier not in noun_lists.SOURCES_OF_LIGHT)
    if head in noun_lists.NOT_OBJECTS:
        return False
    plural = head.endswith("s") and head not in noun_lists.IRREGULAR_PLURALS
    return not plural or noun_lists.NOT_OBJECTS.isdisjoint(word_lists.singulars(head))
