"""Object names: singular and plural, and which two of them may mean the same thing (WordNet).

The table is cut from WordNet 3.0 by ``reproduce/build_wordnet.py``: of every noun its first two meanings that can be
seen, and everything above those. *Differs* from the authors' rule: synonyms and ancestors at any distance count, names
of several words are looked up whole and then by their last words, rare meanings ("a dog": a dull girl) do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

# One thing though it ends like several.
PAIRS = {
    *("binoculars", "eyeglasses", "glasses", "goggles", "headphones", "jeans", "pajamas", "pants", "pliers"),
    *("scissors", "shorts", "skis", "sunglasses", "tongs", "trousers", "tweezers"),
}
_IRREGULAR = {"people": "person", "mice": "mouse", "children": "child"}
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh|o)es$")
_NAME = re.compile(r"[^\W\d_][\w' .&-]{0,59}")


def clean(text: object) -> str | None:
    """A name as it is compared and prompted: lower case, single blanks; None for what is no name."""
    if not isinstance(text, str):
        return None
    name = " ".join(text.replace("_", " ").lower().split())
    return name if _NAME.fullmatch(name) else None


def is_known(name: str) -> bool:
    """Whether the table has ``name``, or at least its last words ("office chair": a chair)."""
    return bool(_senses(name))


def is_plural(name: str) -> bool:
    """Whether ``name`` speaks of several things; "scissors" and "jeans" do not."""
    last = name.split()[-1]
    if last in _IRREGULAR:
        return True
    return name not in _names() and last not in PAIRS and last not in _names() and stem(name) != name


@cache
def stem(name: str) -> str:
    """What singular and plural of ``name`` have in common: "dogs" and "dog" -> "dog", "glasses" -> "glass"."""
    *rest, last = name.split()
    if last in _IRREGULAR:
        return " ".join([*rest, _IRREGULAR[last]])
    forms = list(_singulars(last))
    for form in forms:
        if form in _names():
            return " ".join([*rest, form])
    return name if last in _names() or not forms else " ".join([*rest, forms[-1]])


@cache
def related(first: str, second: str) -> bool:
    """Whether one picture's ``first`` may be its ``second``: same word, synonym, or kind of ("dog", "animal")."""
    a, b = stem(first).split(), stem(second).split()
    if a[-len(b) :] == b or b[-len(a) :] == a:  # also "traffic light" and "light"
        return True
    mine, theirs = _senses(first), _senses(second)
    return any(s in _above(t) for s in mine for t in theirs) or any(t in _above(s) for s in mine for t in theirs)


def meanings(name: str) -> frozenset[str | int]:
    """The stem of ``name`` and its synsets: two names that share one of them say the same."""
    return frozenset({stem(name), *_senses(name)})


def _singulars(word: str) -> Iterator[str]:
    """The words that ``word`` may be the plural of, the most regular one last."""
    if word in _table()["irregular"]:
        yield _table()["irregular"][word]
        return
    if len(word) < 4 or not word.endswith("s"):
        return
    if word.endswith(("ss", "us", "is")):  # "bus" and "iris", but also "skis" and "menus"
        yield from (form for form in (word[:-1],) if form in _names())
        return
    if word.endswith("ves"):
        yield from (word[:-3] + "f", word[:-3] + "fe")
    if word.endswith("ies"):
        yield from (word[:-1], word[:-3] + "y")
    elif _SIBILANT.search(word):
        yield from (word[:-1], word[:-2])
    else:
        yield word[:-1]


@cache
def _senses(name: str) -> tuple[int, ...]:
    """Synsets of the longest run of last words that the table has."""
    words = name.split()
    for start in range(len(words)):
        run = " ".join(words[start:])
        for form in (run, stem(run)):
            if form in _names():
                return tuple(_names()[form])
    return ()


@cache
def _above(synset: int) -> frozenset[int]:
    """A synset and all of its hypernyms, at any distance."""
    found, todo = {synset}, [synset]
    while todo:
        new = [parent for parent in _table()["above"][todo.pop()] if parent not in found]
        found.update(new)
        todo += new
    return frozenset(found)


def _names() -> dict[str, list[int]]:
    names: dict[str, list[int]] = _table()["names"]
    return names


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(files(__package__).joinpath("wordnet.json").read_text(encoding="utf-8"))
    return table
