"""Boxes of a picture and the verdict on them, as one row of ``results.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from learn_to_steer import catalog, geometry
from learn_to_steer.benchmarks import BenchmarkPrompt, Rule, Size, found_as, score_relations
from learn_to_steer.detectors._protocol import Asked, Detector
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection
from learn_to_steer.loading import named_variant


@dataclass(frozen=True)
class Judge:
    """A detector and the words it answers to: name or alias -> class; None when it answers to any word.

    ``known`` makes pictures for its self-test, with what is in them; None when it has none.
    """

    detector: Detector
    vocabulary: Mapping[str, str] | None
    known: Callable[[], list[tuple[Image, list[Detection]]]] | None = None

    def look(self, pictures: Sequence[Image], prompts: Sequence[BenchmarkPrompt]) -> list[list[Detection]]:
        """What is in each picture, of what its prompt asks for."""
        return self.detector.detect(pictures, [asked(prompt) for prompt in prompts])


def find_detector(name: str, device: str = "cpu") -> Judge:
    """The detector called ``name``, or "name:SOURCE" for other weights of its kind (a folder or hub id).

    Raises UnknownNameError for a name, DataError for weights that are missing or of no use.
    """
    kind, _, source = name.partition(":")
    module = catalog.load("detectors", kind)
    return Judge(module.load(device, source or None), module.vocabulary(), getattr(module, "known", None))


def usual_detector(model: str | None) -> str:
    """The name of the detector that knows everything ``model`` draws.

    Raises DataError for a model (None: unknown) whose variant names none, since a detector that does not know what is
    in a picture would call it wrong.
    """
    variant = named_variant(model) if model else None
    if variant is None or variant.detector is None:
        raise DataError(
            f"name a --detector for pictures of {model or 'an unknown model'}: mask2former knows COCO's objects, owlv2 "
            "and grounding-dino any word"
        )
    return variant.detector


def asked(prompt: BenchmarkPrompt) -> Asked:
    """What a detector must look for in a picture of ``prompt``."""
    return Asked(tuple(sorted(prompt.objects)), any("color" in e for e in prompt.metadata.get("include", ())))


def judge(
    prompt: BenchmarkPrompt,
    found: Sequence[Detection],
    vocabulary: Mapping[str, str] | None,
    rule: Rule = score_relations,
    size: Size | None = None,
) -> dict[str, Any]:
    """The verdict on one picture, by ``rule``: correct, present, once, held, on_axis, reason, scores and boxes.

    ``on_axis`` is, per relation, whether the centres of the best boxes lie on the right side of each other,
    however little; None where one of the two objects is missing. ``once`` is whether every object that a relation
    names was found exactly once; None without a relation. ``size`` is the picture's, in pixels. Raises
    UnknownNameError for an object that the detector cannot see.
    """
    score = rule(prompt, found, vocabulary, size)
    on_axis: list[bool | None] = []
    once = True if prompt.relations else None
    for relation in prompt.relations:
        subjects, references = (found_as(name, found, vocabulary) for name in (relation.subject, relation.object))
        once = once and len(subjects) == len(references) == 1
        both = subjects and references
        on_axis.append(geometry.on_axis(subjects[0].box, relation.predicate, references[0].box) if both else None)
    return {
        "correct": score.correct,
        "present": score.present,
        "once": once,
        "held": list(score.held),
        "on_axis": on_axis,
        "reason": score.reason,
        "scores": dict(score.scores),
        "boxes": [_box(one) for one in found],
    }


def _box(one: Detection) -> dict[str, Any]:
    color = {"color": one.color} if one.color else {}
    box = [round(float(edge), 2) for edge in one.box]
    return {"name": one.name, "score": round(one.score, 4), **color, "box": box}
