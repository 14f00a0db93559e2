"""Stage 1 of the parser: cut a prompt into words and tag each with the role that it can have.

The tags come from rules, not from a model. Closed word classes are listed in ``word_lists``; other words are tagged by
their ending, and a word about which nothing is known is a noun.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from learn_to_steer.prompts import noun_lists, word_lists
from learn_to_steer.prompts.markup import MARKUP, Span, mask
from learn_to_steer.prompts.relation import last_words, match_predicate

# Numbers, words with their apostrophes, commas and dashes, ends of sentences.
_TOKEN = re.compile(
    r"\d+(?:[.,/:]\d+)+\w*|[^\W_]+(?:['\u2019][^\W_]+)*|[,;:&+/\u2014\u2013]|[.!?|]|(?<=\s)-(?=\s)|\n\s*\n"
)
_QUOTED = re.compile(
    r"\"[^\"]*\"|\u201c[^\u201d]*\u201d|\u00ab[^\u00bb]*\u00bb|(?<!\w)'[^']*'(?!\w)|(?<!\w)\u2018[^\u2019]*\u2019(?!\w)"
)
_NAME = "\ue000"  # the text of a token of the tokenizer
QUOTE = '"'  # the text of a token that stands for a quotation


_LOOK_AHEAD = 12  # words; no noun phrase is longer
_BEFORE_NOUN = (
    word_lists.DETERMINERS
    | word_lists.PREPOSITIONS
    | word_lists.CONJUNCTIONS
    | word_lists.FUNCTION_WORDS
    | frozenset(last_words())
)


@dataclass(frozen=True)
class Token:
    """A word in lower case (``QUOTE`` for a whole quotation) and its character span."""

    text: str
    span: Span


def tokenize(text: str) -> list[Token]:
    """Return the words and punctuation marks of a text, left to right.

    A quotation is one token, since its words are lettering or a title. A text that is quoted as a whole is read as if
    it were not.
    """
    found = [Token(QUOTE, quoted.span()) for quoted in _QUOTED.finditer(text) if quoted.group() != text.strip()]
    quotes = iter([token.span for token in found])
    start, end = next(quotes, (len(text), len(text)))
    for match in _TOKEN.finditer(text):
        while match.start() >= end and start < len(text):
            start, end = next(quotes, (len(text), len(text)))
        if match.start() < start:
            word = match.group().lower()
            found.append(Token(word if word.strip() else ".", match.span()))
    return sorted(found, key=lambda token: token.span)


class Tag(Enum):
    """The role of a word, or of a chunk of several words, in the grammar."""

    NOUN = "noun"
    RELATION = "relation"
    PREPOSITION = "preposition"
    FILLER = "filler"  # may stand between a noun and its relation: verbs, adverbs, "that"
    CONJUNCTION = "conjunction"  # "and", a comma: a new object or a second relation follows
    NEGATION = "negation"
    STOP = "stop"  # end of a sentence, or a pronoun that the grammar does not resolve
    DETERMINER = "determiner"
    ADJECTIVE = "adjective"
    VERB_OR_ADVERB = "verb or adverb"  # or, in a noun phrase that has no noun yet, an adjective or that noun


class TaggedPrompt:
    """A prompt cut into words, and what the grammar needs to know about the word at an index.

    Attributes:
        text: The prompt with its markup blanked, so that offsets are those of the prompt.
        texts: Its words in lower case.
        spans: The character span of each word.
        names: The tokens of a tokenizer in it, by the indices of their words.
        not_nouns: Indices of words that another tagger calls no noun.
    """

    def __init__(self, prompt: str, tokens: Collection[str] = ()) -> None:
        self.text, words = prompt, dict[Span, str]()
        if tokens or MARKUP.search(prompt):
            self.text, words = mask(prompt, tokens, _BEFORE_NOUN)
        found = tokenize(self.text)
        if words:
            found = sorted([*found, *(Token(name, span) for span, name in words.items())], key=lambda token: token.span)
        self.texts = [token.text for token in found]
        self.spans = [token.span for token in found]
        for index, span in enumerate(self.spans):
            if span in words:
                self.texts[index] = _NAME  # a word of no list, whatever it spells
        self.names = {index: words[span] for index, span in enumerate(self.spans) if span in words}
        self.not_nouns: Collection[int] = ()

    def gap_before(self, index: int) -> str:
        """Return the characters between the word at ``index`` and the word before it."""
        inner = 0 < index < len(self.texts)
        return self.text[self.spans[index - 1][1] : self.spans[index][0]] if inner else ""

    def relation_at(self, index: int) -> tuple[str, int] | None:
        """Return the predicate and number of words of the relation phrase that begins at ``index``; None without one.

        A hyphen makes a phrase part of another word: "above-ground".
        """
        found = match_predicate(self.texts, index)
        if found is None or self.gap_before(index) == "-" or self.gap_before(index + found[1]) == "-":
            return None
        return found

    def fixed_phrase_at(self, index: int) -> tuple[Tag | None, int]:
        """Return the tag of the fixed phrase at ``index`` (None: skip it) and its number of words, 0 without one."""
        for length in (3, 2):
            words = tuple(self.texts[index : index + length])
            if len(words) == length and words in word_lists.FIXED_PHRASES:
                return Tag(word_lists.FIXED_PHRASES[words]), length
        following = self.texts[index + 2] if index + 2 < len(self.texts) else ""
        if self.texts[index : index + 2] == ["left", "over"] and following not in word_lists.DETERMINERS:
            return None, 2  # "left over pizza", but "a bag left over a chair"
        return None, 0

    def compound_at(self, index: int) -> int:
        """Return the number of words of the longest known compound noun at ``index``, 0 without one."""
        if self.texts[index] not in noun_lists.COMPOUND_BEGINNINGS:
            return 0
        candidates = (tuple(self.texts[index : index + length]) for length in (4, 3, 2))
        return next((len(name) for name in candidates if name in noun_lists.COMPOUND_NOUNS), 0)

    def noun_follows(self, index: int) -> bool:
        """Return whether a noun follows in this phrase, also after words like verbs ("a smiling, sleeping dog")."""
        for later in range(index + 1, min(index + _LOOK_AHEAD, len(self.texts))):
            if self.relation_at(later):
                return False
            tag = self.tag_at(later)
            if (
                self.compound_at(later)
                or tag in (Tag.NOUN, Tag.ADJECTIVE)
                or self.texts[later] in word_lists.LIKE_NOUNS
            ):
                return True
            listed = self.texts[index] not in word_lists.ADVERBS and self.texts[later] in (",", "and")
            if tag is not Tag.VERB_OR_ADVERB and not listed:
                return False
        return False

    def tag_at(self, index: int) -> Tag:
        """Return the tag of the single word at ``index``, by its word class or ending; a noun when nothing is known."""
        word = self.texts[index]
        if index in self.names:
            return Tag.NOUN
        if word == "that":  # "a dog that is left of" or "that dog"
            last = index + 1 == len(self.texts) or self.texts[index + 1] == "that"
            follows = last or self.relation_at(index + 1) or self._is_clause(index)
            following = Tag.FILLER if follows else self.tag_at(index + 1)
            return Tag.DETERMINER if following in (Tag.NOUN, Tag.ADJECTIVE) else Tag.FILLER
        if word in ("round", "past"):  # "a round table", "round the table"
            after = self.texts[index + 1] if index + 1 < len(self.texts) else "the"
            return Tag.PREPOSITION if after in word_lists.DETERMINERS else Tag.ADJECTIVE
        if word in word_lists.REQUEST_VERBS and self._is_request(index):
            return Tag.FILLER  # "paint a dog"
        for tag, members in _TAGS.items():
            if word in members:
                return tag
        if word.endswith(("n't", "n\u2019t")):
            return Tag.NEGATION
        if not any(letter.isalpha() for letter in word) and word != QUOTE:
            return Tag.DETERMINER if word.isdigit() else Tag.FILLER
        if word == QUOTE or (word.endswith(("ing", "ed", "ly")) and word not in word_lists.NOUNS_LIKE_VERBS):
            return Tag.VERB_OR_ADVERB
        return Tag.NOUN

    def _is_clause(self, index: int) -> bool:
        """Whether "that" at ``index`` begins a clause with a verb like a noun: "a sign that towers over"."""
        word = self.texts[index + 1]
        return word in word_lists.USUALLY_NOUNS and word.endswith("s") and self.relation_at(index + 2) is not None

    def _is_request(self, index: int) -> bool:
        """Whether the word at ``index`` begins a sentence that requests an image: "draw a dog"."""
        before = self.texts[index - 1] if index else "."
        after = self.texts[index + 1] if index + 1 < len(self.texts) else ""
        return (before in word_lists.STOPS or before == "please") and after in word_lists.DETERMINERS


_TAGS = {
    Tag.DETERMINER: word_lists.DETERMINERS,
    Tag.PREPOSITION: word_lists.PREPOSITIONS,
    Tag.CONJUNCTION: word_lists.CONJUNCTIONS,
    Tag.STOP: word_lists.STOPS,
    Tag.NEGATION: word_lists.NEGATIONS,
    Tag.FILLER: word_lists.FUNCTION_WORDS,
    Tag.ADJECTIVE: word_lists.ADJECTIVES,
    Tag.VERB_OR_ADVERB: word_lists.VERBS_AND_ADVERBS,
}
