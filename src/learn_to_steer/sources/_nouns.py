"""Object names: singular and plural, and whether two of them may mean the same object.

The table ``wordnet.json`` is an extract of WordNet 3.0, made by ``reproduce/build_wordnet.py``: for every noun, its
first two senses that are physical objects, and all their hypernyms. Rarer senses are left out ("a dog": a dull girl).

Unlike the authors' preparation of GQA (paper section 4), synonyms count, and hypernyms at any distance. Names of
several words are looked up whole, then by their last words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

# Names of one object that end like a plural.
SINGULAR_IN_S = {
    *("binoculars", "eyeglasses", "glasses", "goggles", "headphones", "jeans", "pajamas", "pants", "pliers"),
    *("scissors", "shorts", "skis", "sunglasses", "tongs", "trousers", "tweezers"),
}
_IRREGULAR = {"people": "person", "mice": "mouse", "children": "child"}
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh|o)es$")
_NAME = re.compile(r"[^\W\d_][\w' .&-]{0,59}")


def normalise(text: object) -> str | None:
    """Return a name in lower case with single spaces; None if ``text`` is not a name."""
    if not isinstance(text, str):
        return None
    name = " ".join(text.replace("_", " ").lower().split())
    return name if _NAME.fullmatch(name) else None


def is_known(name: str) -> bool:
    """Tell whether ``name`` or its last words are in the table ("office chair" is a chair)."""
    return bool(_synsets(name))


def is_plural(name: str) -> bool:
    """Tell whether ``name`` means several objects; "scissors" and "jeans" do not."""
    last = name.split()[-1]
    if last in _IRREGULAR:
        return True
    return name not in _names() and last not in SINGULAR_IN_S and last not in _names() and singular(name) != name


@cache
def singular(name: str) -> str:
    """Return the singular of ``name``: "dogs" and "dog" -> "dog", "glasses" -> "glass"."""
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
    """Tell whether one object may have both names: the same word, synonyms, or a hypernym ("dog", "animal")."""
    a, b = singular(first).split(), singular(second).split()
    if a[-len(b) :] == b or b[-len(a) :] == a:  # also "traffic light" and "light"
        return True
    ours, theirs = _synsets(first), _synsets(second)
    return any(s in _hypernyms(t) or t in _hypernyms(s) for s in ours for t in theirs)


def meanings(name: str) -> frozenset[str | int]:
    """Return the singular of ``name`` and its synsets; names that share one of them mean the same."""
    return frozenset({singular(name), *_synsets(name)})


def _singulars(word: str) -> Iterator[str]:
    """The words of which ``word`` may be the plural; the most regular one last."""
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
def _synsets(name: str) -> tuple[int, ...]:
    """The synsets of ``name`` or, if it is not in the table, of as many of its last words as are."""
    words = name.split()
    for start in range(len(words)):
        run = " ".join(words[start:])
        for form in (run, singular(run)):
            if form in _names():
                return tuple(_names()[form])
    return ()


@cache
def _hypernyms(synset: int) -> frozenset[int]:
    """A synset and its hypernyms, at any distance."""
    reached, todo = {synset}, [synset]
    while todo:
        new = [parent for parent in _table()["above"][todo.pop()] if parent not in reached]
        reached.update(new)
        todo += new
    return frozenset(reached)


def _names() -> dict[str, list[int]]:
    names: dict[str, list[int]] = _table()["names"]
    return names


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(files(__package__).joinpath("wordnet.json").read_text(encoding="utf-8"))
    return table
