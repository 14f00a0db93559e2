"""Stage 2 of the parser: group the words of a prompt into nouns, relation phrases and the words between them.

A word that may be a verb is taken for one only after a noun. An unknown word is taken for a noun, unless singular or
plural shows that it must be a verb ("a kite drifts", "two dogs nap").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from learn_to_steer.prompts import word_lists
from learn_to_steer.prompts.tagging import QUOTE, Tag, TaggedPrompt

_POSSESSIVE = re.compile(r"['\u2019]s?$")


@dataclass(frozen=True)
class Chunk:
    """A noun, a relation phrase, or a word between them.

    Attributes:
        tag: What it is.
        text: The noun, the predicate of a relation, or the word itself.
        span: Its characters in the prompt.
        definite: Whether a noun phrase begins with "the".
        determiner: The last determiner of a noun phrase; empty without one.
        wording: A relation phrase as the prompt words it.
    """

    tag: Tag
    text: str
    span: tuple[int, int]
    definite: bool = False
    determiner: str = ""
    wording: str = ""


@dataclass(frozen=True)
class GivenNoun:
    """A noun phrase found by another parser.

    Attributes:
        phrase: The characters of the phrase in the prompt.
        name: Those of the object's name, inside the phrase.
    """

    phrase: tuple[int, int]
    name: tuple[int, int]


@dataclass(frozen=True)
class _Unit:
    """A part of a noun phrase: the words from ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    noun: bool
    compound: bool = False


def chunk_prompt(prompt: str, given_nouns: Sequence[GivenNoun] | None = None) -> list[Chunk]:
    """Group the words of a prompt into chunks.

    Args:
        prompt: The prompt.
        given_nouns: Noun phrases of another parser. Only these are nouns then; other unknown words become fillers.

    Returns:
        The chunks from left to right.
    """
    return _Chunker(prompt, given_nouns).run()


class _Chunker:
    """Collects the units of one noun phrase at a time and closes it at the first word that cannot belong to it."""

    def __init__(self, prompt: str, given: Sequence[GivenNoun] | None) -> None:
        self.tagged = TaggedPrompt(prompt)
        self.given = given
        self.chunks: list[Chunk] = []
        self.units: list[_Unit] = []
        self.determiners: list[str] = []

    def run(self) -> list[Chunk]:
        index = 0
        while index < len(self.tagged.texts):
            index = self._take(index)
        self._close()
        return self.chunks

    def _take(self, index: int) -> int:
        """Consume the word at ``index``, or the phrase that begins there; return the index of the next one."""
        if self._continues_after_hyphen(index):
            adjective = self.tagged.tag_at(index) in (Tag.ADJECTIVE, Tag.VERB_OR_ADVERB)
            self.units[-1] = _Unit(self.units[-1].start, index + 1, noun=not adjective)
            return index + 1
        tag, length = self.tagged.fixed_phrase_at(index)
        relation = self.tagged.relation_at(index)
        if relation and relation[1] > length:
            self._add(Tag.RELATION, relation[0], index, index + relation[1])
            return index + relation[1]
        if length:
            if tag is not None:
                self._add(tag, " ".join(self.tagged.texts[index : index + length]), index, index + length)
            return index + length
        if self.given is not None:
            return self._take_given(index)
        if length := self.tagged.compound_at(index):
            self.units.append(_Unit(index, index + length, noun=True, compound=True))
            return index + length
        self._take_word(index, self.tagged.tag_at(index))
        return index + 1

    def _take_word(self, index: int, tag: Tag) -> None:
        """Add one word to the noun phrase, or end the phrase with it."""
        word = self.tagged.texts[index]
        has_noun = any(unit.noun for unit in self.units)
        if tag is Tag.DETERMINER:
            if self.units:
                self._close(Tag.DETERMINER)
            self.determiners.append(word)
        elif word in word_lists.BESIDE_PREPOSITIONS and self._stands_before_noun(index):
            self.units.append(_Unit(index, index + 1, noun=False))  # "a close view", "the next table"
        elif tag in (Tag.NOUN, Tag.ADJECTIVE):
            named = tag is Tag.NOUN or (has_noun and word in word_lists.ADJECTIVES_OR_NOUNS)  # "a river stone"
            self.units.append(_Unit(index, index + 1, named))
        elif word == QUOTE and self.determiners and not has_noun:
            pass  # 'the "Welcome" mat'
        elif tag is Tag.VERB_OR_ADVERB and self.determiners and not has_noun:
            # "a ring above": the phrase needs a noun
            if not self.tagged.noun_follows(index) and word not in word_lists.DEGREE_ADVERBS:
                self.units.append(_Unit(index, index + 1, noun=True))
        elif tag is Tag.VERB_OR_ADVERB and has_noun and self._belongs_to_noun_phrase(index):
            self.units.append(_Unit(index, index + 1, noun=word in word_lists.BASE_VERBS))
        elif tag is Tag.CONJUNCTION and self.units and self._is_only_adjectives() and self.tagged.noun_follows(index):
            self.units = [_Unit(unit.start, unit.end, noun=False) for unit in self.units]  # "a black and white cat"
        else:
            self._add(Tag.FILLER if tag is Tag.VERB_OR_ADVERB else tag, word, index, index + 1)

    def _take_given(self, index: int) -> int:
        """As ``_take``, when another parser found the nouns."""
        texts, spans = self.tagged.texts, self.tagged.spans
        start = spans[index][0]
        noun = next((noun for noun in self.given or () if noun.phrase[0] <= start < noun.phrase[1]), None)
        end = index + 1
        while noun and end < len(texts) and spans[end][0] < noun.phrase[1]:
            if self.tagged.relation_at(end):  # "the left" of "the left of": a relation is never part of an object
                noun = None
            end += 1
        if noun is None or noun.name[0] < start:
            tag, word = self.tagged.tag_at(index), texts[index]
            if tag in (Tag.NOUN, Tag.ADJECTIVE, Tag.VERB_OR_ADVERB, Tag.DETERMINER):
                pronouns = word_lists.SINGULAR_DETERMINERS | word_lists.PLURAL_DETERMINERS  # "the one above"
                stands_alone = word in pronouns and word not in ("a", "an")
                tag = Tag.STOP if stands_alone else Tag.FILLER
            self._add(tag, word, index, index + 1)
            return index + 1
        before = [texts[i] for i in range(index, end) if spans[i][0] < noun.name[0]]
        given = [word for word in before if word in word_lists.DETERMINERS or word.isdigit()]
        if any(word in word_lists.NEGATIONS for word in before):
            self._add(Tag.NEGATION, before[0], index, index + 1)
        text = " ".join(re.split(r"[\s-]+", self.tagged.prompt[slice(*noun.name)].lower()))
        self.chunks.append(Chunk(Tag.NOUN, text, noun.name, given[:1] == ["the"], "".join(given[-1:])))
        return end

    def _add(self, tag: Tag, text: str, start: int, end: int) -> None:
        self._close(tag)
        wording = " ".join(self.tagged.texts[start:end])
        self.chunks.append(
            Chunk(tag, text, (self.tagged.spans[start][0], self.tagged.spans[end - 1][1]), wording=wording)
        )

    def _close(self, following: Tag = Tag.STOP) -> None:
        """End the noun phrase, splitting it at a verb: "a wizard casts spells"."""
        at, tag = self._find_verb(following)
        if at:
            word, rest = self.units[at], self.units[at + 1 :]
            self.units = self.units[:at]
            self._add_noun(Tag.FILLER)
            self.chunks.append(Chunk(tag, self.tagged.texts[word.start], self.tagged.spans[word.start]))
            self.units = rest
        self._add_noun(following)

    def _add_noun(self, following: Tag) -> None:
        """Add the chunk of a noun phrase, whose noun is the last one ("a red sports car" -> "car")."""
        nouns = [unit for unit in self.units if unit.noun]
        last = self.determiners[-1] if self.determiners else ""
        if nouns or (self.units and self.determiners):
            unit = (nouns or self.units)[-1]
            start, end = self.tagged.spans[unit.start][0], self.tagged.spans[unit.end - 1][1]
            name = self.tagged.prompt[start:end].lower()
            bare = _POSSESSIVE.sub("", name)
            text = " ".join(re.split(r"[\s-]+", bare)) if unit.compound else bare
            definite = self.determiners[:1] == ["the"]
            tag = Tag.FILLER if text in word_lists.MEASURE_NOUNS and following is Tag.RELATION else Tag.NOUN
            self.chunks.append(Chunk(tag, text, (start, end - len(name) + len(bare)), definite, last))
        elif self.units:  # adjectives alone: "a dog that is red"
            span = (self.tagged.spans[self.units[0].start][0], self.tagged.spans[self.units[-1].end - 1][1])
            self.chunks.append(Chunk(Tag.FILLER, self.tagged.prompt[slice(*span)].lower(), span))
        elif self.determiners:  # "the one above the bench", "two cups, one above the other"
            self.chunks.append(Chunk(Tag.STOP, last, (0, 0)))
        self.units, self.determiners = [], []

    def _find_verb(self, following: Tag) -> tuple[int, Tag]:
        """Index of the unit that must be a verb (0: none), and the tag of its chunk.

        Finds the verb of "a kite drifts", "two dogs nap" and "rain streaks the window". The tag is STOP where the word
        could be a noun as well.
        """
        determiner = self.determiners[-1] if self.determiners else ""
        after_relation = bool(self.chunks) and self.chunks[-1].tag in (Tag.RELATION, Tag.PREPOSITION)
        for at in range(1, len(self.units)):
            earlier, unit, last = self.units[at - 1], self.units[at], at + 1 == len(self.units)
            word, noun = self.tagged.texts[unit.start], self.tagged.texts[earlier.end - 1]
            if not (earlier.noun and unit.noun and unit.end - unit.start == 1 and word.isalpha() and noun.isalpha()):
                continue
            if word.endswith("s"):
                if word.endswith(("ss", "us", "is", "as")) or word in word_lists.SINGULAR_IN_S:
                    continue
                if determiner in word_lists.SINGULAR_DETERMINERS:
                    return at, Tag.FILLER
                if last and following is Tag.DETERMINER:
                    return at, Tag.STOP if after_relation else Tag.FILLER  # "above the palm trees a bird"
                if last and not after_relation and word in word_lists.AMBIGUOUS_IN_S and not noun.endswith("s"):
                    return at, Tag.STOP  # "the car parks", "the city parks"
                continue
            counted = determiner in word_lists.PLURAL_DETERMINERS or determiner.isdigit()
            in_s = noun.endswith("s") and noun not in word_lists.SINGULAR_IN_S
            several = noun in word_lists.IRREGULAR_PLURALS or in_s
            if last and counted and several and word not in word_lists.IRREGULAR_PLURALS:
                return at, Tag.FILLER
        return 0, Tag.FILLER

    def _belongs_to_noun_phrase(self, index: int) -> bool:
        """Whether a verb-like word after a noun is part of the phrase: "a moss covered stone", "a fruit stand"."""
        word = self.tagged.texts[index]
        if word in word_lists.BASE_VERBS:
            return self.determiners[-1:] != [] and self.determiners[-1] in word_lists.SINGULAR_DETERMINERS
        participle = word.endswith("ed") or word in word_lists.COMPOUNDING_PARTICIPLES
        if word in word_lists.NAMING_VERBS or not participle or not self.determiners:
            return False
        for after in range(index + 1, len(self.tagged.texts)):
            if self.tagged.fixed_phrase_at(after)[1] or self.tagged.relation_at(after):
                return False
            if self.tagged.tag_at(after) is not Tag.ADJECTIVE:
                return self.tagged.tag_at(after) is Tag.NOUN or self.tagged.compound_at(after) > 0
        return False

    def _stands_before_noun(self, index: int) -> bool:
        """Whether the word stands between an article and its noun."""
        after_article = self.determiners[-1:] in (["a"], ["an"], ["the"]) and not self.units
        return after_article and self.tagged.noun_follows(index)

    def _is_only_adjectives(self) -> bool:
        """Whether the phrase so far may consist of adjectives: "a black", "a mossy"."""
        return all(not unit.noun or self._looks_like_adjective(unit) for unit in self.units)

    def _looks_like_adjective(self, unit: _Unit) -> bool:
        """Whether a noun may be an unknown adjective instead."""
        return unit.end - unit.start == 1 and word_lists.looks_like_adjective(self.tagged.texts[unit.start])

    def _continues_after_hyphen(self, index: int) -> bool:
        """Whether a hyphen joins the word to the last unit: "t-shirt", "close-up"."""
        return bool(self.units) and self.units[-1].end == index and self.tagged.gap_before(index) == "-"
