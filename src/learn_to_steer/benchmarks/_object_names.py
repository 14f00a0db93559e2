"""Match the objects of a prompt with a detector's classes: aliases, plurals, kinds of people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import Relation
from learn_to_steer.registry import unknown

IRREGULAR = {"mice": "mouse", "people": "person", "men": "man", "women": "woman", "children": "child", "geese": "goose"}
# COCO has a class for people, but none for girls or boys.
BROADER = {"man": "person", "woman": "person", "girl": "person", "boy": "person", "child": "person"}
SAME = {"sofa": "couch", "television": "tv"}


def detector_class(name: str, vocabulary: Mapping[str, str]) -> str:
    """Find the detector's class for an object.

    Args:
        name: The object as a prompt writes it: a class, an alias, a plural, or a kind of person such as "girl".
        vocabulary: Every name and alias that the detector knows -> the class it reports.

    Returns:
        The class.

    Raises:
        UnknownNameError: The detector has no such class; the message names the nearest one.
    """
    for form in _forms(name):
        if form in vocabulary:
            return vocabulary[form]
    raise unknown("object (the detector has no class for it)", name, vocabulary)


def is_known(name: str, vocabulary: Mapping[str, str]) -> bool:
    """Whether ``detector_class`` finds a class."""
    return any(form in vocabulary for form in _forms(name))


def is_one_thing(first: str, second: str) -> bool:
    """Whether two names are of one thing: equal, singular and plural, or synonyms."""
    spellings = [
        {SAME.get(form, form) for form in _with_singulars(" ".join(name.lower().split()))} for name in (first, second)
    ]
    return bool(spellings[0] & spellings[1])


def matching_detections(
    name: str, detections: Sequence[Detection], vocabulary: Mapping[str, str] | None
) -> list[Detection]:
    """Select the detections of one object of a prompt.

    Args:
        name: The object as the prompt writes it.
        detections: All detections in the image.
        vocabulary: As in ``detector_class``. Without it a detection matches if its name is the object as written, or
            its singular.

    Returns:
        Its detections, highest score first.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain the object.
    """
    forms = _forms(name) if vocabulary is None else [detector_class(name, vocabulary)]
    by_form = ([one for one in detections if one.name == form] for form in forms)
    return sorted(next(filter(None, by_form), []), key=lambda one: -one.score)


def detected_numbers(
    relations: Sequence[Relation], detections: Sequence[Detection], vocabulary: Mapping[str, str] | None
) -> dict[str, tuple[int, int]]:
    """Count the detections of each object of some relations.

    Args:
        relations: The relations.
        detections: All detections in the image.
        vocabulary: As in ``detector_class``.

    Returns:
        For each name, in alphabetical order: the number of its detections, and the number that there should be, which
        is one, or two if a relation is between two objects of that name.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object.
    """
    names = {name for one in relations for name in (one.subject, one.object)}
    same = [one for one in relations if is_one_thing(one.subject, one.object)]
    twice = {name for one in same for name in (one.subject, one.object)}
    return {
        name: (len(matching_detections(name, detections, vocabulary)), 2 if name in twice else 1)
        for name in sorted(names)
    }


def _forms(name: str) -> Iterator[str]:
    """``name`` in lower case, then its possible singulars, then synonyms and broader terms of these."""
    forms = list(_with_singulars(" ".join(name.lower().split())))
    yield from forms
    for other in (SAME, BROADER):
        yield from (other[form] for form in forms if form in other)


def _with_singulars(word: str) -> Iterator[str]:
    """``word``, then the singulars that it may be the plural of."""
    yield word
    *rest, last = word.split(" ")
    if last in IRREGULAR:
        yield " ".join([*rest, IRREGULAR[last]])
    for ending, singulars in (("ves", ("fe", "f")), ("ies", ("y", "ie")), ("es", ("", "e")), ("s", ("",))):
        if word.endswith(ending):
            yield from (word.removesuffix(ending) + singular for singular in singulars)
