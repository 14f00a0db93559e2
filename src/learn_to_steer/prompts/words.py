"""The words of a prompt, each with what it can be to the grammar where it stands."""

from __future__ import annotations

from enum import Enum

from learn_to_steer.prompts import lexicon, nouns, phrases, verbs
from learn_to_steer.prompts.tokens import QUOTE, tokens


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


class Words:
    """A prompt cut into words: ``texts`` in lower case, and their characters, ``spans``."""

    def __init__(self, prompt: str) -> None:
        found = tokens(prompt)
        self.prompt = prompt
        self.texts = [token.text for token in found]
        self.spans = [token.span for token in found]

    def between(self, index: int) -> str:
        """The characters before the word at ``index``, back to the one before it."""
        inner = 0 < index < len(self.texts)
        return self.prompt[self.spans[index - 1][1] : self.spans[index][0]] if inner else ""

    def relation(self, index: int) -> tuple[str, int] | None:
        """The relation phrase at ``index``, unless a hyphen makes it part of another word: "above-ground"."""
        found = phrases.match(self.texts, index)
        if found is None or self.between(index) == "-" or self.between(index + found[1]) == "-":
            return None
        return found

    def idiom(self, index: int) -> tuple[Kind | None, int]:
        """What the fixed turn at ``index`` is (None: passed over), and its number of words: 0 when there is none."""
        for length in (3, 2):
            said = tuple(self.texts[index : index + length])
            if len(said) == length and said in lexicon.IDIOMS:
                return Kind(lexicon.IDIOMS[said]), length
        following = self.texts[index + 2] if index + 2 < len(self.texts) else ""
        if self.texts[index : index + 2] == ["left", "over"] and following not in lexicon.DETERMINERS:
            return None, 2  # "left over pizza", but "a bag left over a chair"
        return None, 0

    def compound(self, index: int) -> int:
        """The number of words of the longest known compound noun at ``index``, 0 when there is none."""
        candidates = (tuple(self.texts[index : index + length]) for length in (3, 2))
        return next((len(name) for name in candidates if name in nouns.COMPOUNDS), 0)

    def noun_follows(self, index: int) -> bool:
        """Whether the noun phrase goes on after ``index``, verb-like words aside ("a smiling, sleeping dog")."""
        for later in range(index + 1, len(self.texts)):
            if self.relation(later):
                return False
            kind = self.kind(later)
            if self.compound(later) or kind in (Kind.NOUN, Kind.ADJECTIVE):
                return True
            listed = self.texts[index] not in lexicon.ADVERBS and self.texts[later] in (",", "and")
            if kind is not Kind.LOOSE and not listed:
                return False
        return False

    def kind(self, index: int) -> Kind:
        """What the single word at ``index`` is, as its class or its ending says; a noun when nothing is known."""
        word = self.texts[index]
        if word == "that":  # "a dog that is left of" or "that dog"
            last = index + 1 == len(self.texts) or self.texts[index + 1] == "that"
            following = Kind.GLUE if last or self.relation(index + 1) else self.kind(index + 1)
            return Kind.DETERMINER if following in (Kind.NOUN, Kind.ADJECTIVE) else Kind.GLUE
        if word in ("round", "past"):  # "a round table", "round the table"
            after = self.texts[index + 1] if index + 1 < len(self.texts) else "the"
            return Kind.PREPOSITION if after in lexicon.DETERMINERS else Kind.ADJECTIVE
        if word in verbs.ORDERS and self._orders(index):
            return Kind.GLUE  # "paint a dog"
        for kind, members in _CLASSES.items():
            if word in members:
                return kind
        if word.endswith(("n't", "n\u2019t")):
            return Kind.NOT
        if not any(letter.isalpha() for letter in word) and word != QUOTE:
            return Kind.DETERMINER if word.isdigit() else Kind.GLUE
        if word == QUOTE or (word.endswith(("ing", "ed", "ly")) and word not in nouns.LOOKALIKES):
            return Kind.LOOSE
        return Kind.NOUN

    def _orders(self, index: int) -> bool:
        """Whether a sentence begins at ``index`` with an order to whoever draws."""
        before = self.texts[index - 1] if index else "."
        after = self.texts[index + 1] if index + 1 < len(self.texts) else ""
        return (before in lexicon.STOPS or before == "please") and after in lexicon.DETERMINERS


_CLASSES = {
    Kind.DETERMINER: lexicon.DETERMINERS,
    Kind.PREPOSITION: lexicon.PREPOSITIONS,
    Kind.JOIN: lexicon.JOINS,
    Kind.STOP: lexicon.STOPS,
    Kind.NOT: lexicon.NEGATIONS,
    Kind.GLUE: lexicon.GLUE,
    Kind.ADJECTIVE: lexicon.ADJECTIVES,
    Kind.LOOSE: verbs.LOOSE,
}
