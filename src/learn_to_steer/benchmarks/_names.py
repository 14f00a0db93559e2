"""Which of a detector's classes an object of a prompt is: aliases, plurals, people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from learn_to_steer.catalog import unknown
from learn_to_steer.geometry import Detection

IRREGULAR = {"mice": "mouse", "people": "person", "men": "man", "women": "woman", "children": "child", "geese": "goose"}
# What a detector may call it instead. COCO knows people, but neither girls nor boys.
BROADER = {"man": "person", "woman": "person", "girl": "person", "boy": "person", "child": "person"}
SAME = {"sofa": "couch", "television": "tv"}


def class_of(name: str, canonical: Mapping[str, str]) -> str:
    """The detector's class for an object as a prompt writes it: an alias, a plural or "girl" is understood.

    Raises UnknownNameError, naming the nearest match, for an object outside the vocabulary.
    """
    for form in _forms(name):
        if form in canonical:
            return canonical[form]
    raise unknown("object (the detector cannot see it)", name, canonical)


def is_known(name: str, canonical: Mapping[str, str]) -> bool:
    """Whether the detector has a class for an object as a prompt writes it."""
    return any(form in canonical for form in _forms(name))


def found_as(name: str, detections: Sequence[Detection], canonical: Mapping[str, str] | None) -> list[Detection]:
    """The detections of the object that a prompt calls ``name``, best first.

    Without ``canonical`` names are compared as written, plurals tolerated. Raises UnknownNameError when
    ``canonical`` does not know the object.
    """
    forms = _forms(name) if canonical is None else [class_of(name, canonical)]
    same = ([one for one in detections if one.name == form] for form in forms)
    return sorted(next(filter(None, same), []), key=lambda one: -one.score)


def _forms(name: str) -> Iterator[str]:
    """``name`` in lower case, the singulars it may be the plural of, then what else these may be called."""
    forms = list(_numbers(" ".join(name.lower().split())))
    yield from forms
    for other in (SAME, BROADER):
        yield from (other[form] for form in forms if form in other)


def _numbers(word: str) -> Iterator[str]:
    yield word
    *rest, last = word.split(" ")
    if last in IRREGULAR:
        yield " ".join([*rest, IRREGULAR[last]])
    for ending, singulars in (("ves", ("fe", "f")), ("ies", ("y", "ie")), ("es", ("", "e")), ("s", ("",))):
        if word.endswith(ending):
            yield from (word.removesuffix(ending) + singular for singular in singulars)
