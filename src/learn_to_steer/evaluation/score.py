"""Boxes of a picture and the verdict on them, as one row of ``results.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learn_to_steer import catalog
from learn_to_steer.benchmarks import BenchmarkPrompt, class_of, score_relations
from learn_to_steer.detectors._protocol import Detector
from learn_to_steer.geometry import Box, Detection

# Predicate -> for every axis it speaks of: the axis (0: x), and whether the subject's centre has the lower value.
SIGNS = {
    "left of": ((0, True),),
    "right of": ((0, False),),
    "above": ((1, True),),
    "below": ((1, False),),
    "above left of": ((1, True), (0, True)),
    "above right of": ((1, True), (0, False)),
    "below left of": ((1, False), (0, True)),
    "below right of": ((1, False), (0, False)),
}


@dataclass(frozen=True)
class Judge:
    """A detector and the words it answers to: name or alias -> class."""

    detector: Detector
    vocabulary: Mapping[str, str]


def find_detector(name: str, device: str = "cpu") -> Judge:
    """The detector called ``name``; raises UnknownNameError, or DataError when its weights are missing."""
    module = catalog.load("detectors", name)
    return Judge(module.load(device), module.vocabulary())


def judge(prompt: BenchmarkPrompt, found: Sequence[Detection], vocabulary: Mapping[str, str]) -> dict[str, Any]:
    """The verdict on one picture: correct, present, held, on_axis, reason and boxes.

    ``on_axis`` is, per relation, whether the centres lie on the right side of each other, however little
    (VISOR's rule); None where one of the two objects is missing. Raises UnknownNameError for an object that
    the detector cannot see.
    """
    score = score_relations(prompt, found, vocabulary)
    best: dict[str, Detection] = {}
    for detection in sorted(found, key=lambda one: one.score):
        best[detection.name] = detection
    on_axis: list[bool | None] = []
    for relation in prompt.relations:
        pair = [best.get(class_of(name, vocabulary)) for name in (relation.subject, relation.object)]
        subject, reference = pair
        if subject is None or reference is None:
            on_axis.append(None)
        else:
            on_axis.append(_on_axis(subject.box, relation.predicate, reference.box))
    return {
        "correct": score.correct,
        "present": score.present,
        "held": list(score.held),
        "on_axis": on_axis,
        "reason": score.reason,
        "boxes": [
            {"name": one.name, "score": round(one.score, 4), "box": [round(float(edge), 2) for edge in one.box]}
            for one in found
        ],
    }


def _on_axis(subject: Box, predicate: str, reference: Box) -> bool:
    offsets = [(subject[a] + subject[a + 2]) - (reference[a] + reference[a + 2]) for a in (0, 1)]
    return all(offsets[axis] < 0 if lower else offsets[axis] > 0 for axis, lower in SIGNS[predicate])
