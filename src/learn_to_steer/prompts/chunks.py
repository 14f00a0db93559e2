"""A prompt as a row of items: nouns, relation phrases and the few kinds of words between them.

No tagger and no model: closed word classes (``lexicon``), relation phrases (``phrases``), and one rule for the
open ones: a word that may be a verb is one only after a noun.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from learn_to_steer.prompts import lexicon, phrases

# Words (with their apostrophes, straight or curly), then commas and dashes, then ends of sentences.
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[,;:&+/\u2014\u2013]|[.!?|]|(?<=\s)-(?=\s)")
_POSSESSIVE = re.compile(r"['\u2019]s$")


class Kind(Enum):
    """What an item, or a single word, is to the grammar."""

    NOUN = "noun"
    RELATION = "relation"
    PREPOSITION = "preposition"
    GLUE = "glue"  # may stand between a noun and its relation: verbs, adverbs, "that"
    JOIN = "join"  # "and", a comma: what follows is a new thing or a second demand
    NOT = "not"
    STOP = "stop"  # end of a sentence, or a pronoun that the grammar does not resolve
    DETERMINER = "determiner"
    ADJECTIVE = "adjective"
    LOOSE = "loose"  # verb or adverb, unless a noun phrase still lacks its noun


@dataclass(frozen=True)
class Item:
    """A noun, a relation (``text`` is the predicate) or a word between; ``span`` is in characters."""

    kind: Kind
    text: str
    span: tuple[int, int]
    definite: bool = False


@dataclass(frozen=True)
class _Unit:
    """Part of a noun phrase: the words ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    noun: bool
    compound: bool = False


def chunk(prompt: str) -> list[Item]:
    """Cut a prompt into items, left to right."""
    return _Chunker(prompt).run()


class _Chunker:
    def __init__(self, prompt: str) -> None:
        found = list(_TOKEN.finditer(prompt))
        self.prompt = prompt
        self.words = [token.group().lower() for token in found]
        self.spans = [token.span() for token in found]
        self.items: list[Item] = []
        self.units: list[_Unit] = []
        self.determiner: str | None = None

    def run(self) -> list[Item]:
        index = 0
        while index < len(self.words):
            index = self._take(index)
        self._close()
        return self.items

    def _take(self, index: int) -> int:
        """Consume the word at ``index``, or the phrase that begins there; return the index of the next one."""
        if self._hyphenated(index):
            self.units[-1] = _Unit(self.units[-1].start, index + 1, noun=True)
            return index + 1
        if relation := phrases.match(self.words, index):
            predicate, length = relation
            self._emit(Kind.RELATION, predicate, index, index + length)
            return index + length
        if length := self._compound(index):
            self.units.append(_Unit(index, index + length, noun=True, compound=True))
            return index + length
        kind = self._kind(index)
        has_noun = any(unit.noun for unit in self.units)
        if kind is Kind.DETERMINER:
            if self.units:
                self._close()
            self.determiner = self.determiner or self.words[index]
        elif kind in (Kind.NOUN, Kind.ADJECTIVE):
            self.units.append(_Unit(index, index + 1, kind is Kind.NOUN))
        elif kind is Kind.LOOSE and self.determiner and not has_noun:
            if not self._noun_follows(index):  # "a ring above": something must be the noun
                self.units.append(_Unit(index, index + 1, noun=True))
        elif kind is Kind.JOIN and self.units and not has_noun and self._noun_follows(index):
            pass  # "a black and white cat"
        else:
            self._emit(Kind.GLUE if kind is Kind.LOOSE else kind, self.words[index], index, index + 1)
        return index + 1

    def _emit(self, kind: Kind, text: str, start: int, end: int) -> None:
        self._close()
        self.items.append(Item(kind, text, (self.spans[start][0], self.spans[end - 1][1])))

    def _close(self) -> None:
        """End the noun phrase: its noun is the last one ("a red sports car" -> "car")."""
        nouns = [unit for unit in self.units if unit.noun]
        if nouns or (self.units and self.determiner):
            unit = (nouns or self.units)[-1]
            start, end = self.spans[unit.start][0], self.spans[unit.end - 1][1]
            name = self.prompt[start:end].lower()
            bare = _POSSESSIVE.sub("", name)
            text = " ".join(re.split(r"[\s-]+", bare)) if unit.compound else bare
            self.items.append(Item(Kind.NOUN, text, (start, end - len(name) + len(bare)), self.determiner == "the"))
        elif self.units:  # adjectives alone: "a dog that is red"
            first, last = self.units[0], self.units[-1]
            span = (self.spans[first.start][0], self.spans[last.end - 1][1])
            self.items.append(Item(Kind.GLUE, self.prompt[span[0] : span[1]].lower(), span))
        self.units, self.determiner = [], None

    def _hyphenated(self, index: int) -> bool:
        """Whether the word continues the last unit after a hyphen: "t-shirt", "close-up"."""
        return (
            bool(self.units)
            and self.units[-1].end == index
            and self.prompt[self.spans[index - 1][1] : self.spans[index][0]] == "-"
        )

    def _compound(self, index: int) -> int:
        """The number of words of the longest known compound noun at ``index``, 0 when there is none."""
        candidates = (tuple(self.words[index : index + length]) for length in (3, 2))
        return next((len(words) for words in candidates if words in lexicon.COMPOUNDS), 0)

    def _noun_follows(self, index: int) -> bool:
        """Whether the noun phrase goes on after ``index``, verb-like words aside ("a smiling, sleeping dog")."""
        for later in range(index + 1, len(self.words)):
            if phrases.match(self.words, later):
                return False
            kind = self._kind(later)
            if self._compound(later) or kind in (Kind.NOUN, Kind.ADJECTIVE):
                return True
            if kind is not Kind.LOOSE:
                return False
        return False

    def _kind(self, index: int) -> Kind:
        word = self.words[index]
        if word == "that":  # "a dog that is left of" or "that dog"
            last = index + 1 == len(self.words) or self.words[index + 1] == "that"
            following = Kind.GLUE if last else self._kind(index + 1)
            return Kind.DETERMINER if following in (Kind.NOUN, Kind.ADJECTIVE) else Kind.GLUE
        for kind, members in _CLASSES.items():
            if word in members:
                return kind
        if word.endswith(("n't", "n\u2019t")):
            return Kind.NOT
        if word.isdigit():
            return Kind.DETERMINER
        if word.endswith(("ing", "ed", "ly")) and word not in lexicon.LOOKALIKES:
            return Kind.LOOSE
        return Kind.NOUN


_CLASSES = {
    Kind.DETERMINER: lexicon.DETERMINERS,
    Kind.PREPOSITION: lexicon.PREPOSITIONS,
    Kind.JOIN: lexicon.JOINS,
    Kind.STOP: lexicon.STOPS,
    Kind.NOT: lexicon.NEGATIONS,
    Kind.GLUE: lexicon.GLUE,
    Kind.ADJECTIVE: lexicon.ADJECTIVES,
    Kind.LOOSE: lexicon.LOOSE,
}
