"""Which noun a relation is said of, when several stand before it.

"a cup of tea above a plate" is about the cup, "a hedgehog with an umbrella walks under a tree" about the hedgehog,
"a room with a sofa to the left of a window" about the sofa; "a girl holding a balloon above a dog" could be about
either, and then nobody is named: no relation is better than a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from learn_to_steer.prompts import lexicon, nouns, verbs
from learn_to_steer.prompts.chunks import Item
from learn_to_steer.prompts.words import Kind


@dataclass
class Links:
    """What is known of the relations read so far: reference -> subject, None where nothing was found."""

    subjects: dict[int, int | None] = field(default_factory=dict)
    previous: tuple[int, int] | None = None

    def add(self, subject: int | None, reference: int) -> None:
        """Remember a relation; ``subject`` None when it has none."""
        self.subjects[reference] = subject
        if subject is not None:
            self.previous = (subject, reference)


def subject(items: list[Item], relation: int, links: Links) -> int | None:
    """Index of the noun that the relation is said of, None when there is none or it is not clear."""
    at = relation - 1
    while at >= 0 and items[at].kind in (Kind.GLUE, Kind.JOIN) and items[at].text != ";":
        at -= 1
    if at < 0 or items[at].kind is not Kind.NOUN:
        return None
    between = items[at + 1 : relation]
    joined = any(item.kind is Kind.JOIN for item in between)
    said = [item.text for item in between if item.kind is Kind.GLUE]
    listed = at > 0 and items[at - 1].kind is Kind.JOIN and not items[at].determiner
    if joined and (listed or items[at].text in nouns.BODY):
        return None  # "a girl, blue eyes, to the left of a boy"
    if any(word in lexicon.RELATIVES for word in said):
        return _climb(items, at, links, _Reading(near=True))
    sentence = any(verbs.is_finite(word) for word in said)
    found = _climb(
        items, at, links, _Reading(far=sentence or joined, sentence=sentence, over=items[relation].said == "over")
    )
    if joined and links.previous is not None and found == links.previous[1]:
        return links.previous[0]
    return found


@dataclass(frozen=True)
class _Reading:
    """How far to look: ``near`` takes the noun at hand, ``far`` the first one of the clause."""

    near: bool = False
    far: bool = False
    sentence: bool = False  # far, and over a relation too: "a cat on top of a box is left of a dog"
    over: bool = False  # the relation is said as "over"


def _climb(items: list[Item], noun: int, links: Links, reading: _Reading) -> int | None:
    """The noun that the one at ``noun`` belongs to; None when that is not clear, or there is none."""
    name = place = noun
    while place > 0:
        before = items[place - 1]
        if before.kind is Kind.RELATION:
            if not reading.sentence:
                return name
            outer = links.subjects.get(place)
            if outer is None or outer > place:
                return None
            name = place = outer
        elif before.kind is Kind.PREPOSITION or (before.kind is Kind.NOT and _says_without(items, place - 1)):
            step = _over_preposition(items, name, place, reading)
            if step is None or step == (name, place):
                return None if step is None else name
            name, place = step
        elif before.kind is Kind.GLUE:
            outer = _over_verb(items, place, links, reading)
            if outer is None or outer == place:
                return None if outer is None else name
            name = place = outer
        elif before.kind is Kind.NOUN:
            # Side by side: "in the garden a dog", or a verb that nothing knows.
            return name if _is_fronted(items, place - 1, links) else None
        elif reading.sentence and before.kind is Kind.JOIN and _is_worn_too(items, name, place):
            place -= 2  # "a girl with pink hair and a uniform stands"
        else:
            return None if before.kind is Kind.NOT else name
    return name


def _is_worn_too(items: list[Item], name: int, place: int) -> bool:
    worn = nouns.WORN | nouns.BODY
    placed = place > 2 and items[place - 3].kind is Kind.RELATION  # "left of a tie and the tie is above"
    return items[name].text in worn and place > 1 and items[place - 2].text in worn and not placed


def _says_without(items: list[Item], at: int) -> bool:
    return items[at].text == "without" or (at > 0 and items[at - 1].kind is Kind.PREPOSITION)


def _over_preposition(items: list[Item], name: int, place: int, reading: _Reading) -> tuple[int, int] | None:
    """One step out of "… of tea": the new name and place, the same ones to stop here, None when it is not clear."""
    at = place - 1
    while at > 0 and items[at - 1].kind is Kind.PREPOSITION:
        at -= 1
    word = items[at].text
    outer = at - 1
    while outer >= 0 and items[outer].kind is Kind.GLUE:
        outer -= 1
    verb = any(verbs.is_verb(item.text) for item in items[outer + 1 : at])
    stay = (name, place)
    if reading.far and outer > 0 and items[outer].text == "," and items[outer - 1].kind is Kind.NOUN:
        if word == "with" and not verb and items[name].text not in nouns.WORN | nouns.BODY:
            return None
        outer -= 1  # "a tart, dusted with sugar, to the left of"
    if outer < 0 or items[outer].kind is not Kind.NOUN:
        if word == "with":
            bare = items[name].text in nouns.WORN and outer >= 0
            return None if bare else stay  # ", with an armchair to the left of"
        return stay if word == "of" else None  # "on the table below a lamp" names no subject
    if word == "of" and (is_part(items[outer]) or items[outer].text in nouns.PICTURES):
        return name, outer
    if verb and any(item.text in verbs.PLACING for item in items[outer + 1 : at]):
        return None
    if word in lexicon.BESIDE and not (reading.far or verb):
        return stay
    if word == "with" and not (reading.sentence or verb):
        if items[outer].text in nouns.PLACES:
            return None if reading.far else stay
        if not reading.far and items[name].determiner and items[name].text not in nouns.WORN | nouns.BODY:
            return None  # but "a vase with sunflowers" is about the vase
    if reading.near and word != "of":
        return stay
    return outer, outer


def _over_verb(items: list[Item], place: int, links: Links, reading: _Reading) -> int | None:
    """Index of the noun that does something with the one at ``place``, or ``place`` itself to stop here."""
    outer = place - 1
    while outer >= 0 and items[outer].kind is Kind.GLUE:
        outer -= 1
    said = [item.text for item in items[outer + 1 : place]]
    acts = [word for word in said if verbs.is_verb(word)]
    aside = reading.sentence and said[:1] and said[0] in lexicon.RELATIVES
    if aside and outer >= 0 and items[outer].text == ",":
        outer -= 1  # "the robot, which holds a flower, is to the left of"
    if outer < 0 or items[outer].kind is not Kind.NOUN or not acts or _is_fronted(items, outer, links):
        return place
    if any(word in verbs.CONTAINING for word in said) and not reading.sentence:
        return place
    if reading.near or said[-1] in lexicon.RELATIVES or items[outer].text in nouns.PICTURES:
        return place
    if any(word in verbs.PLACING for word in said) and not reading.far:
        return place
    carried = any(word in verbs.CARRYING for word in said)
    if not reading.far and (carried or (reading.over and not any(word in verbs.MOVING for word in said))):
        return None
    return outer


def _is_fronted(items: list[Item], noun: int, links: Links) -> bool:
    """Whether the noun belongs to what a sentence begins with: "in the garden", "above the bench"."""
    if noun in links.subjects:
        found = links.subjects[noun]
        return found is None or found > noun
    return noun > 0 and items[noun - 1].kind is Kind.PREPOSITION and _climb(items, noun, links, _Reading()) is None


def is_part(item: Item) -> bool:
    """Whether the noun only measures or cuts another: "a pair of", "the top of"."""
    return item.kind is Kind.NOUN and (item.text in nouns.PARTS or item.text.removesuffix("s") in nouns.PARTS)
