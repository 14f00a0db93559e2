"""Select the two boxes that each relation of a prompt is about, also where both objects have one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

from learn_to_steer.benchmarks._object_names import detector_class, is_one_thing, matching_detections
from learn_to_steer.benchmarks.base import BenchmarkPrompt
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.geometry import Detection, holds, iou
from learn_to_steer.prompts import Relation

FUSED = 0.9  # two boxes with a higher IoU are one object that was detected twice
Pair = tuple[Detection | None, Detection | None]
_Key = tuple[str, int]  # a name, and 1 for the second object of that name, else 0


def boxes_of_relations(
    prompt: BenchmarkPrompt, detections: Sequence[Detection], vocabulary: Mapping[str, str] | None
) -> list[Pair]:
    """Select the boxes of the subject and the object of each relation of a prompt.

    An object is the detection of its class with the highest score. Where a relation is between two objects of one name
    ("a dog to the left of another dog"), they are the two detections with the highest scores that are not one object
    detected twice (IoU above 0.9). Which of the two is the subject cannot be seen, so they are assigned such that as
    many relations as possible hold.

    Args:
        prompt: The prompt.
        detections: All detections in the image.
        vocabulary: As in ``detector_class``.

    Returns:
        For each relation the detections of its subject and its object; None for one that was not detected.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object.
    """
    names = (name for one in prompt.relations for name in (one.subject, one.object))
    found = {name: matching_detections(name, detections, vocabulary) for name in names}
    keys = _object_keys(prompt.relations)
    doubled = list(dict.fromkeys(name for pair in keys for name, number in pair if number))
    choices = []
    for swapped in product((False, True), repeat=len(doubled)):
        turned = {name for name, swap in zip(doubled, swapped, strict=True) if swap}
        boxes = {key: _box(found[key[0]], key[1], key[0] in turned) for pair in keys for key in pair}
        choices.append([(boxes[subject], boxes[reference]) for subject, reference in keys])
    if len(choices) == 1:
        return choices[0]
    return max(choices, key=lambda pairs: _number_held(prompt.relations, pairs))


def require_distinct_classes(prompt: BenchmarkPrompt, vocabulary: Mapping[str, str]) -> None:
    """Check that a detector can tell the objects of a prompt's relations apart.

    Args:
        prompt: The prompt.
        vocabulary: As in ``detector_class``.

    Raises:
        UnknownNameError: It has one class for two of them ("man" and "woman" are both "person" in COCO), so one box
            would be both.
    """
    names = dict.fromkeys(name for one in prompt.relations for name in (one.subject, one.object))
    for first, second in combinations(names, 2):
        known = detector_class(first, vocabulary)
        if known == detector_class(second, vocabulary) and not is_one_thing(first, second):
            raise UnknownNameError(
                f"the detector cannot tell {first!r} from {second!r} in {prompt.prompt!r}: its class for both is "
                f"{known!r}; choose another --detector, or name other objects"
            )


def _object_keys(relations: Sequence[Relation]) -> list[tuple[_Key, _Key]]:
    """The objects of each relation. A later relation of the second "dog" is about it, by its place in the prompt."""
    second = {one.object_span for one in relations if is_one_thing(one.subject, one.object)} - {None}
    keys = []
    for one in relations:
        subject, reference = int(one.subject_span in second), int(one.object_span in second)
        if is_one_thing(one.subject, one.object):
            keys.append(((one.subject, subject), (one.subject, 1 - subject)))
        else:
            keys.append(((one.subject, subject), (one.object, reference)))
    return keys


def _box(found: Sequence[Detection], number: int, swapped: bool) -> Detection | None:
    """The detection of the first or the second object of a name."""
    if not found or (number == 0 and not swapped):
        return found[0] if found else None
    second = next((other for other in found[1:] if iou(found[0].box, other.box) <= FUSED), None)
    return second if number != swapped else found[0]


def _number_held(relations: Sequence[Relation], pairs: Sequence[Pair]) -> int:
    return sum(
        subject is not None and reference is not None and holds(subject.box, one.predicate, reference.box)
        for one, (subject, reference) in zip(relations, pairs, strict=True)
    )
