"""A prompt as a row of items: nouns, relation phrases and the few kinds of words between them.

No tagger and no model: closed word classes (``lexicon``), relation phrases (``phrases``), and few rules for the
open ones: a word that may be a verb is one only after a noun; a word that nothing knows is a noun, unless the
number of its noun phrase says that it must be a verb ("a kite drifts", "two dogs nap").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from learn_to_steer.prompts import lexicon, nouns, verbs
from learn_to_steer.prompts.tokens import QUOTE
from learn_to_steer.prompts.words import Kind, Words

_POSSESSIVE = re.compile(r"['\u2019]s?$")


@dataclass(frozen=True)
class Item:
    """A noun, a relation (``text`` is the predicate) or a word between; ``span`` is in characters.

    ``said`` is a relation's wording; ``determiner`` the last one of a noun phrase, ``definite`` whether it begins
    with "the".
    """

    kind: Kind
    text: str
    span: tuple[int, int]
    definite: bool = False
    determiner: str = ""
    said: str = ""


@dataclass(frozen=True)
class Noun:
    """A noun phrase that somebody else found: the phrase, and in it the characters that name the object."""

    phrase: tuple[int, int]
    name: tuple[int, int]


@dataclass(frozen=True)
class _Unit:
    """Part of a noun phrase: the words ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    noun: bool
    compound: bool = False


def chunk(prompt: str, phrases_given: Sequence[Noun] | None = None) -> list[Item]:
    """Cut a prompt into items, left to right.

    With ``phrases_given`` only these are nouns, and every other word that is in no closed class is glue.
    """
    return _Chunker(prompt, phrases_given).run()


class _Chunker:
    def __init__(self, prompt: str, given: Sequence[Noun] | None) -> None:
        self.words = Words(prompt)
        self.given = given
        self.items: list[Item] = []
        self.units: list[_Unit] = []
        self.determiners: list[str] = []

    def run(self) -> list[Item]:
        index = 0
        while index < len(self.words.texts):
            index = self._take(index)
        self._close()
        return self.items

    def _take(self, index: int) -> int:
        """Consume the word at ``index``, or the phrase that begins there; return the index of the next one."""
        if self._hyphenated(index):
            adjective = self.words.kind(index) in (Kind.ADJECTIVE, Kind.LOOSE)
            self.units[-1] = _Unit(self.units[-1].start, index + 1, noun=not adjective)
            return index + 1
        turn, length = self.words.idiom(index)
        relation = self.words.relation(index)
        if relation and relation[1] > length:
            self._emit(Kind.RELATION, relation[0], index, index + relation[1])
            return index + relation[1]
        if length:
            if turn is not None:
                self._emit(turn, " ".join(self.words.texts[index : index + length]), index, index + length)
            return index + length
        if self.given is not None:
            return self._take_given(index)
        if length := self.words.compound(index):
            self.units.append(_Unit(index, index + length, noun=True, compound=True))
            return index + length
        self._take_word(index, self.words.kind(index))
        return index + 1

    def _take_word(self, index: int, kind: Kind) -> None:
        word = self.words.texts[index]
        has_noun = any(unit.noun for unit in self.units)
        if kind is Kind.DETERMINER:
            if self.units:
                self._close(Kind.DETERMINER)
            self.determiners.append(word)
        elif word in lexicon.BESIDE and self._stands_before_noun(index):
            self.units.append(_Unit(index, index + 1, noun=False))  # "a close view", "the next table"
        elif kind in (Kind.NOUN, Kind.ADJECTIVE):
            named = kind is Kind.NOUN or (has_noun and word in lexicon.NOUNS_TOO)  # "a river stone"
            self.units.append(_Unit(index, index + 1, named))
        elif word == QUOTE and self.determiners and not has_noun:
            pass  # 'the "Welcome" mat'
        elif kind is Kind.LOOSE and self.determiners and not has_noun:
            # "a ring above": something must be the noun
            if not self.words.noun_follows(index) and word not in lexicon.DEGREES:
                self.units.append(_Unit(index, index + 1, noun=True))
        elif kind is Kind.LOOSE and has_noun and self._belongs(index):
            self.units.append(_Unit(index, index + 1, noun=word in verbs.BASES))
        elif kind is Kind.JOIN and self.units and self._describes() and self.words.noun_follows(index):
            self.units = [_Unit(unit.start, unit.end, noun=False) for unit in self.units]  # "a black and white cat"
        else:
            self._emit(Kind.GLUE if kind is Kind.LOOSE else kind, word, index, index + 1)

    def _take_given(self, index: int) -> int:
        """As ``_take``, where the noun phrases are known."""
        texts, spans = self.words.texts, self.words.spans
        start = spans[index][0]
        noun = next((noun for noun in self.given or () if noun.phrase[0] <= start < noun.phrase[1]), None)
        end = index + 1
        while noun and end < len(texts) and spans[end][0] < noun.phrase[1]:
            if self.words.relation(end):  # "the left" of "the left of": a relation is never part of an object
                noun = None
            end += 1
        if noun is None or noun.name[0] < start:
            kind, word = self.words.kind(index), texts[index]
            if kind in (Kind.NOUN, Kind.ADJECTIVE, Kind.LOOSE, Kind.DETERMINER):
                stands_alone = word in lexicon.SINGULAR | lexicon.PLURAL and word not in ("a", "an")  # "the one above"
                kind = Kind.STOP if stands_alone else Kind.GLUE
            self._emit(kind, word, index, index + 1)
            return index + 1
        before = [texts[i] for i in range(index, end) if spans[i][0] < noun.name[0]]
        given = [word for word in before if word in lexicon.DETERMINERS or word.isdigit()]
        if any(word in lexicon.NEGATIONS for word in before):
            self._emit(Kind.NOT, before[0], index, index + 1)
        text = " ".join(re.split(r"[\s-]+", self.words.prompt[slice(*noun.name)].lower()))
        self.items.append(Item(Kind.NOUN, text, noun.name, given[:1] == ["the"], "".join(given[-1:])))
        return end

    def _emit(self, kind: Kind, text: str, start: int, end: int) -> None:
        self._close(kind)
        said = " ".join(self.words.texts[start:end])
        self.items.append(Item(kind, text, (self.words.spans[start][0], self.words.spans[end - 1][1]), said=said))

    def _close(self, following: Kind = Kind.STOP) -> None:
        """End the noun phrase, or the sentence that it turns out to be: "a wizard casts spells"."""
        at, kind = self._verb_inside(following)
        if at:
            word, rest = self.units[at], self.units[at + 1 :]
            self.units = self.units[:at]
            self._close_noun(Kind.GLUE)
            self.items.append(Item(kind, self.words.texts[word.start], self.words.spans[word.start]))
            self.units = rest
        self._close_noun(following)

    def _close_noun(self, following: Kind) -> None:
        """End the noun phrase: its noun is the last one ("a red sports car" -> "car")."""
        found = [unit for unit in self.units if unit.noun]
        last = self.determiners[-1] if self.determiners else ""
        if found or (self.units and self.determiners):
            unit = (found or self.units)[-1]
            start, end = self.words.spans[unit.start][0], self.words.spans[unit.end - 1][1]
            name = self.words.prompt[start:end].lower()
            bare = _POSSESSIVE.sub("", name)
            text = " ".join(re.split(r"[\s-]+", bare)) if unit.compound else bare
            definite = self.determiners[:1] == ["the"]
            kind = Kind.GLUE if text in nouns.MEASURES and following is Kind.RELATION else Kind.NOUN
            self.items.append(Item(kind, text, (start, end - len(name) + len(bare)), definite, last))
        elif self.units:  # adjectives alone: "a dog that is red"
            span = (self.words.spans[self.units[0].start][0], self.words.spans[self.units[-1].end - 1][1])
            self.items.append(Item(Kind.GLUE, self.words.prompt[slice(*span)].lower(), span))
        elif self.determiners:  # "the one above the bench", "two cups, one above the other"
            self.items.append(Item(Kind.STOP, last, (0, 0)))
        self.units, self.determiners = [], []

    def _verb_inside(self, following: Kind) -> tuple[int, Kind]:
        """Which unit of the noun phrase must be a verb, 0 for none, and as what it stands in the row of items.

        "a kite drifts", "two dogs nap", "rain streaks the window"; a STOP where it could be a noun as well.
        """
        determiner = self.determiners[-1] if self.determiners else ""
        asked = bool(self.items) and self.items[-1].kind in (Kind.RELATION, Kind.PREPOSITION)
        for at in range(1, len(self.units)):
            earlier, unit, last = self.units[at - 1], self.units[at], at + 1 == len(self.units)
            word, noun = self.words.texts[unit.start], self.words.texts[earlier.end - 1]
            if not (earlier.noun and unit.noun and unit.end - unit.start == 1 and word.isalpha() and noun.isalpha()):
                continue
            if word.endswith("s"):
                if word.endswith(("ss", "us", "is", "as")) or word in nouns.SINGULAR_S:
                    continue
                if determiner in lexicon.SINGULAR:
                    return at, Kind.GLUE
                if last and following is Kind.DETERMINER:
                    return at, Kind.STOP if asked else Kind.GLUE  # "above the palm trees a bird"
                if last and not asked and word in verbs.AMBIGUOUS and not noun.endswith("s"):
                    return at, Kind.STOP  # "the car parks", "the city parks"
                continue
            counted = determiner in lexicon.PLURAL or determiner.isdigit()
            several = noun in nouns.PEOPLE or (noun.endswith("s") and noun not in nouns.SINGULAR_S)
            if last and counted and several and word not in nouns.PEOPLE:
                return at, Kind.GLUE
        return 0, Kind.GLUE

    def _belongs(self, index: int) -> bool:
        """Whether a verb-like word after a noun is part of the phrase: "a moss covered stone", "a fruit stand"."""
        word = self.words.texts[index]
        if word in verbs.BASES:
            return self.determiners[-1:] != [] and self.determiners[-1] in lexicon.SINGULAR
        participle = word.endswith("ed") or word in verbs.COMPOUNDING
        if word in verbs.NAMING or not participle or not self.determiners:
            return False
        for after in range(index + 1, len(self.words.texts)):
            if self.words.idiom(after)[1] or self.words.relation(after):
                return False
            if self.words.kind(after) is not Kind.ADJECTIVE:
                return self.words.kind(after) is Kind.NOUN or self.words.compound(after) > 0
        return False

    def _stands_before_noun(self, index: int) -> bool:
        article = self.determiners[-1:] in (["a"], ["an"], ["the"]) and not self.units
        return article and self.words.noun_follows(index)

    def _describes(self) -> bool:
        """Whether the phrase so far may be adjectives only: "a black", "a mossy"."""
        return all(
            not unit.noun or (unit.end - unit.start == 1 and lexicon.looks_adjective(self.words.texts[unit.start]))
            for unit in self.units
        )

    def _hyphenated(self, index: int) -> bool:
        """Whether the word continues the last unit after a hyphen: "t-shirt", "close-up"."""
        return bool(self.units) and self.units[-1].end == index and self.words.between(index) == "-"
