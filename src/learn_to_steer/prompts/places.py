"""Which noun a relation refers to, and what only sounds like a relation: "under construction", "over 100 birds"."""

from __future__ import annotations

import re

from learn_to_steer.prompts import lexicon, nouns, verbs
from learn_to_steer.prompts.chunks import Item
from learn_to_steer.prompts.heads import is_part
from learn_to_steer.prompts.words import Kind

_PRONOUNS = ("my", "your", "his", "her", "its", "our", "their")
_SIDE = re.compile(r"^(?:on|at|to)\b.*\b(?:side|top|bottom)\b|^(?:on|at|in) the (?:far )?(?:left|right) of$")


def reference(items: list[Item], relation: int) -> int | None:
    """Index of the noun right after the relation, past "the top of"; None when there is no noun."""
    at = relation + 1
    while at + 2 < len(items) and is_part(items[at]) and items[at + 1].text == "of":
        at += 2
    return at if at < len(items) and items[at].kind is Kind.NOUN else None


def is_place(items: list[Item], relation: int, at: int) -> bool:
    """Whether the noun at ``at`` is one that something can be above, below or beside of, as the words say it."""
    said, noun = items[relation], items[at]
    of = at + 2 < len(items) and items[at + 1].text == "of"
    if noun.text in nouns.NOT_OBJECTS or (of and items[at + 2].text in nouns.NOT_OBJECTS):
        return False
    if noun.definite and noun.text in nouns.FRAMES and not of:
        return False
    if noun.text in nouns.BODY and noun.determiner in _PRONOUNS:
        return False  # whose head it is, only a reader of pronouns can tell
    if relation and items[relation - 1].text in verbs.NAMING:
        return False  # "a film called Under the Skin"
    if _SIDE.match(said.said) and noun.text in nouns.INSIDE and said.said != "on top of":
        return False
    if said.said == "at the bottom of" and noun.text in nouns.HOLLOW:
        return False
    return said.said not in _VERTICAL or _is_vertical_place(items, relation, noun)


_VERTICAL = ("over", "under", "underneath", "beneath", "below", "above")


def _is_vertical_place(items: list[Item], relation: int, noun: Item) -> bool:
    said = items[relation]
    if noun.determiner in lexicon.QUANTITIES or (noun.determiner.isdigit() and int(noun.determiner) > 9):
        return False
    if noun.text in nouns.AMOUNTS and (not noun.determiner or noun.determiner in lexicon.PLURAL):
        return False
    if not noun.determiner and noun.text in nouns.BARE[said.text] and said.said in ("over", "under"):
        return False
    if said.said not in ("above", "below") and noun.text in nouns.BODY:
        return False
    before = items[relation - 1].text if relation else ""
    if said.said == "over" and before in verbs.OVER:
        return False
    # "a sweater over a shirt" is worn so.
    return not (said.said in ("over", "under") and before in nouns.WORN and noun.text in nouns.WORN)


def is_thing(item: Item) -> bool:
    """Whether a noun can be said to stand somewhere: not "the left", not "the night"."""
    return item.text not in nouns.NOT_OBJECTS and not (item.definite and item.text in nouns.FRAMES)
