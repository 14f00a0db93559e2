"""Stage 2 of the parser: group the words of a prompt into nouns, relation phrases and the words between them.

A word that may be a verb is taken for one only after a noun. An unknown word is taken for a noun, unless singular or
plural shows that it must be a verb ("a kite drifts", "two dogs nap").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.phrase_verbs import Unit, find_verb
from learn_to_steer.prompts.tagging import QUOTE, Tag, TaggedPrompt

_BEFORE_OBJECT = (Tag.PREPOSITION, Tag.RELATION)
_ALSO_NOUNS = word_lists.LIKE_NOUNS | word_lists.ADJECTIVES_OR_NOUNS
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
        modifier: The noun before the noun: "signal" of "a signal light"; empty without one.
        doubted: Whether another tagger calls the noun none.
    """

    tag: Tag
    text: str
    span: tuple[int, int]
    definite: bool = False
    determiner: str = ""
    wording: str = ""
    modifier: str = ""
    doubted: bool = False


def chunk_words(tagged: TaggedPrompt) -> list[Chunk]:
    """Group the words of a prompt into chunks, from left to right."""
    return _Chunker(tagged).run()


def _is_group_of(chunks: list[Chunk], number: str) -> bool:
    """Whether the chunks end with "a family of", and a number follows."""
    counted = number in word_lists.PLURAL_DETERMINERS and len(chunks) > 1
    return counted and chunks[-1].text == "of" and chunks[-2].tag is Tag.NOUN


class _Chunker:
    """Collects the units of one noun phrase at a time and closes it at the first word that cannot belong to it."""

    def __init__(self, tagged: TaggedPrompt) -> None:
        self.tagged = tagged
        self.chunks: list[Chunk] = []
        self.units: list[Unit] = []
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
            self.units[-1] = Unit(self.units[-1].start, index + 1, noun=not adjective)
            return index + 1
        tag, length = self.tagged.fixed_phrase_at(index)
        relation = self.tagged.relation_at(index)
        if relation and relation[1] > length:
            self._add(Tag.RELATION, relation[0], index, index + relation[1])
            return index + relation[1]
        described = tag is Tag.FILLER and self._stands_before_noun(index + length - 1)  # "an upside-down city"
        if length and not described:
            if tag is not None:
                self._add(tag, " ".join(self.tagged.texts[index : index + length]), index, index + length)
            return index + length
        if length := self.tagged.compound_at(index):
            self.units.append(Unit(index, index + length, noun=True, compound=True))
            return index + length
        self._take_word(index, self.tagged.tag_at(index))
        return index + 1

    def _take_word(self, index: int, tag: Tag) -> None:
        """Add one word to the noun phrase, or end the phrase with it."""
        word = self.tagged.texts[index]
        has_noun = any(unit.noun for unit in self.units)
        if tag is Tag.DETERMINER and has_noun and self._is_number_of_name(index):
            pass  # "platform nine"
        elif tag is Tag.DETERMINER:
            if self.units:
                self._close(Tag.DETERMINER)
            self.determiners.append(word)
        elif word in word_lists.BESIDE_PREPOSITIONS and self._stands_before_noun(index):
            self.units.append(Unit(index, index + 1, noun=False))  # "a close view", "the next table"
        elif tag is Tag.VERB_OR_ADVERB and word in word_lists.LIKE_NOUNS and self._reads_as_noun(word):
            after_of = not self.units and not self.determiners and self.chunks[-1:] != []
            self.units.append(Unit(index, index + 1, noun=after_of and self.chunks[-1].tag in _BEFORE_OBJECT))
        elif tag is Tag.ADJECTIVE and has_noun and word in word_lists.VERBS_WITH_OVER and self._is_over(index + 1):
            self._add(Tag.FILLER, word, index, index + 1)  # "farmers bent over"
        elif tag is Tag.NOUN and self._is_verb_by_place(index):
            self._add(Tag.FILLER, word, index, index + 1)
        elif tag in (Tag.NOUN, Tag.ADJECTIVE):
            named = tag is Tag.NOUN or (has_noun and word in word_lists.ADJECTIVES_OR_NOUNS)  # "a river stone"
            self.units.append(Unit(index, index + 1, named))
        elif word == QUOTE and self.determiners and not has_noun:
            pass  # 'the "Welcome" mat'
        elif word.endswith("ing") and not self.units and self._is_headcount():
            self._add(Tag.FILLER, word, index, index + 1)  # "a family of three roasting marshmallows"
        elif tag is Tag.VERB_OR_ADVERB and not self.units and self._describes_object(index):
            self.units.append(
                Unit(index, index + 1, noun=False)
            )  # "lanterns of coloured glass", "under falling leaves"
        elif tag is Tag.VERB_OR_ADVERB and self.determiners and not has_noun:
            # "a ring above": the phrase needs a noun
            if not self.tagged.noun_follows(index) and word not in word_lists.DEGREE_ADVERBS:
                self.units.append(Unit(index, index + 1, noun=True))
        elif tag is Tag.VERB_OR_ADVERB and has_noun and self._belongs_to_noun_phrase(index):
            self.units.append(Unit(index, index + 1, noun=word in word_lists.BASE_VERBS))
        elif tag is Tag.CONJUNCTION and self.units and self._is_only_adjectives() and self.tagged.noun_follows(index):
            self.units = [Unit(unit.start, unit.end, noun=False) for unit in self.units]  # "a black and white cat"
        else:
            self._add(Tag.FILLER if tag is Tag.VERB_OR_ADVERB else tag, word, index, index + 1)

    def _add(self, tag: Tag, text: str, start: int, end: int) -> None:
        self._close(tag)
        wording = " ".join(self.tagged.texts[start:end])
        self.chunks.append(
            Chunk(tag, text, (self.tagged.spans[start][0], self.tagged.spans[end - 1][1]), wording=wording)
        )

    def _close(self, following: Tag = Tag.STOP) -> None:
        """End the noun phrase, splitting it at a verb: "a wizard casts spells"."""
        at, tag = 0, Tag.FILLER
        if len(self.units) > 1:
            after_relation = bool(self.chunks) and self.chunks[-1].tag in (Tag.RELATION, Tag.PREPOSITION)
            determiner = self.determiners[-1] if self.determiners else ""
            at, tag = find_verb(self.tagged, self.units, determiner, following, after_relation)
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
        nouns = nouns or [unit for unit in self.units if self.tagged.texts[unit.start] in _ALSO_NOUNS]
        last = self.determiners[-1] if self.determiners else ""
        if nouns or (self.units and self.determiners):
            unit = (nouns or self.units)[-1]
            start, end = self.tagged.spans[unit.start][0], self.tagged.spans[unit.end - 1][1]
            name = self.tagged.text[start:end].lower()
            bare = self.tagged.names.get(unit.start) or _POSSESSIVE.sub("", name)
            text = " ".join(re.split(r"[\s-]+", bare)) if unit.compound else bare
            definite = self.determiners[:1] == ["the"]
            tag = Tag.FILLER if text in noun_lists.MEASURE_NOUNS and following is Tag.RELATION else Tag.NOUN
            if unit.start not in self.tagged.names:
                end += len(bare) - len(name)
            modifier = self.tagged.texts[nouns[-2].end - 1] if len(nouns) > 1 else ""
            # With a determiner and no other noun it can be nothing else.
            doubted = unit.start in self.tagged.not_nouns and (not last or modifier != "")
            self.chunks.append(Chunk(tag, text, (start, end), definite, last, "", modifier, doubted))
        elif self.units:  # adjectives alone: "a dog that is red"
            span = (self.tagged.spans[self.units[0].start][0], self.tagged.spans[self.units[-1].end - 1][1])
            self.chunks.append(Chunk(Tag.FILLER, self.tagged.text[slice(*span)].lower(), span))
        elif self.determiners and _is_group_of(self.chunks, last):  # "a family of three"
            self.chunks.append(Chunk(Tag.NOUN, last, (0, 0), determiner=last))
        elif last == "both":  # "a cat and a dog, both above a tree"
            self.chunks.append(Chunk(Tag.FILLER, last, (0, 0)))
        elif self.determiners:  # "the one above the bench", "two cups, one above the other"
            self.chunks.append(Chunk(Tag.STOP, last, (0, 0)))
        self.units, self.determiners = [], []

    def _belongs_to_noun_phrase(self, index: int) -> bool:
        """Whether a verb-like word after a noun is part of the phrase: "a moss covered stone", "a fruit stand"."""
        word = self.tagged.texts[index]
        if word in word_lists.BASE_VERBS:
            noun = self.tagged.texts[self.units[-1].end - 1]
            several = noun.endswith("s") or noun in noun_lists.IRREGULAR_PLURALS
            return self.determiners != [] and not several
        participle = word.endswith("ed") or word in word_lists.COMPOUNDING_PARTICIPLES
        if word in word_lists.NAMING_VERBS or not participle or not self.determiners:
            return False
        for after in range(index + 1, len(self.tagged.texts)):
            if self.tagged.fixed_phrase_at(after)[1] or self.tagged.relation_at(after):
                return False
            if self.tagged.tag_at(after) is not Tag.ADJECTIVE:
                return self.tagged.tag_at(after) is Tag.NOUN or self.tagged.compound_at(after) > 0
        return False

    def _is_verb_by_place(self, index: int) -> bool:
        """Whether a bare word like a noun stands where only its verb can: "is writing on", "that towers over"."""
        if self.units or self.determiners or len(self.chunks) < 2 or self.chunks[-2].tag is not Tag.NOUN:
            return False
        word, link = self.tagged.texts[index], self.chunks[-1].text
        if link in word_lists.RELATIVE_PRONOUNS:
            return word in word_lists.USUALLY_NOUNS and self.tagged.relation_at(index + 1) is not None
        return link in word_lists.COPULAS and word in word_lists.NOUNS_LIKE_VERBS and word.endswith("ing")

    def _stands_before_noun(self, index: int) -> bool:
        """Whether the word stands between a determiner and its noun."""
        return self.determiners != [] and not self.units and self.tagged.noun_follows(index)

    def _reads_as_noun(self, word: str) -> bool:
        """Whether a word like a verb stands where no finite verb can: "a travel poster", "a mountain of presents"."""
        if not self.units:
            after_object = bool(self.chunks) and self.chunks[-1].tag in _BEFORE_OBJECT
            return not self.determiners and (after_object or not word.endswith("s"))
        noun = self.tagged.texts[self.units[-1].end - 1]
        plural = noun.endswith("s") or noun in noun_lists.IRREGULAR_PLURALS
        return self.units[-1].noun and not plural and not word.endswith("s")

    def _is_headcount(self) -> bool:
        """Whether the phrase so far is the number of "a family of three"."""
        counted = len(self.determiners) == 1 and _is_group_of(self.chunks, self.determiners[0])
        return counted and self.chunks[-2].text in noun_lists.COUNTED_BY_HEADS

    def _describes_object(self, index: int) -> bool:
        """Whether a participle stands between a preposition or relation and its noun."""
        bare = not self.determiners and bool(self.chunks) and self.tagged.texts[index].endswith(("ed", "ing"))
        if not bare or index + 1 == len(self.tagged.texts) or self.tagged.relation_at(index + 1):
            return False
        governed = self.chunks[-1].tag is Tag.RELATION or self.chunks[-1].text in ("of", "with", "in", "on", "against")
        return governed and self.tagged.tag_at(index + 1) in (Tag.NOUN, Tag.ADJECTIVE)

    def _is_number_of_name(self, index: int) -> bool:
        """Whether the number at ``index`` belongs to the noun before it."""
        word = self.tagged.texts[index]
        number = word.isdigit() or word in word_lists.NUMBERS
        return number and not self.tagged.noun_follows(index) and index + 1 < len(self.tagged.texts)

    def _is_over(self, index: int) -> bool:
        return self.tagged.texts[index : index + 1] == ["over"]

    def _is_only_adjectives(self) -> bool:
        """Whether the phrase so far may consist of adjectives: "a black", "a mossy"."""
        return all(not unit.noun or self._looks_like_adjective(unit) for unit in self.units)

    def _looks_like_adjective(self, unit: Unit) -> bool:
        """Whether a noun may be an unknown adjective instead."""
        return unit.end - unit.start == 1 and word_lists.looks_like_adjective(self.tagged.texts[unit.start])

    def _continues_after_hyphen(self, index: int) -> bool:
        """Whether a hyphen joins the word to the last unit: "t-shirt", "close-up"."""
        return bool(self.units) and self.units[-1].end == index and self.tagged.gap_before(index) == "-"
