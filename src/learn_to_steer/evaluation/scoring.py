"""The scorer: a detector that passed its self-test, and the score of an image by its detections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from PIL.Image import Image

from learn_to_steer import geometry
from learn_to_steer.benchmarks import (
    BenchmarkPrompt,
    Rule,
    Size,
    boxes_of_relations,
    detected_numbers,
    matching_detections,
    score_relations,
)
from learn_to_steer.detectors import LoadedDetector, Query, run_self_test
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.geometry import Detection, iou
from learn_to_steer.model_names import named_variant

SAME_IOU, SAME_SCORE = 0.9, 0.01  # two detections are the same above this IoU and below this difference of scores
MANY_IMAGES = 8  # a working detector finds something in at least one of this many images


class Scorer(LoadedDetector):
    """A detector with its vocabulary and its self-test images, and the scores of images by its detections."""

    def detect(self, images: Sequence[Image], prompts: Sequence[BenchmarkPrompt]) -> list[list[Detection]]:
        """Detect the objects of each image's prompt.

        Args:
            images: The images.
            prompts: One prompt per image.

        Returns:
            The detections of each image, boxes in pixels.
        """
        return self.detector.detect(images, [detection_query(prompt) for prompt in prompts])

    def score(
        self,
        prompt: BenchmarkPrompt,
        detections: Sequence[Detection],
        rule: Rule = score_relations,
        size: Size | None = None,
    ) -> dict[str, Any]:
        """Score one image by its detections.

        Args:
            prompt: The prompt of the image.
            detections: The detections in the image.
            rule: The benchmark's rule.
            size: Width and height of the image in pixels, for rules that need them.

        Returns:
            A part of a row of ``results.jsonl``. ``correct``, ``present``, ``held``, ``reason`` and ``scores`` are
            those of the rule's ``Score``. ``once``: whether each object of a relation was detected exactly once (None
            without relations), or twice if a relation is between two objects of its name. ``on_axis``: for each
            relation, whether the centres of the boxes of ``boxes_of_relations`` lie on the correct side of each other
            by any amount (None if an object is missing). ``boxes``: the detections.

        Raises:
            UnknownNameError: The prompt names an object outside the vocabulary.
        """
        score = rule(prompt, detections, self.vocabulary, size)
        on_axis: list[bool | None] = []
        numbers = detected_numbers(prompt.relations, detections, self.vocabulary)
        once = all(number == wanted for number, wanted in numbers.values()) if prompt.relations else None
        boxes = boxes_of_relations(prompt, detections, self.vocabulary)
        for relation, (subject, reference) in zip(prompt.relations, boxes, strict=True):
            if subject is None or reference is None:
                on_axis.append(None)
            else:
                on_axis.append(geometry.on_axis(subject.box, relation.predicate, reference.box))
        return {
            "correct": score.correct,
            "present": score.present,
            "once": once,
            "held": list(score.held),
            "on_axis": on_axis,
            "reason": score.reason,
            "scores": dict(score.scores),
            "boxes": [one.as_dict() for one in detections],
        }

    def seen(self, prompt: BenchmarkPrompt, detections: Sequence[Detection]) -> dict[str, Any]:
        """Tell what the detector sees of a prompt, as far as it knows the objects.

        Args:
            prompt: The prompt of the image.
            detections: The detections in the image.

        Returns:
            ``objects``: for each name whether it was detected; ``relations``: for each relation whether it holds, in
            the order of the prompt. None where the detector does not know an object.
        """
        objects: dict[str, bool | None] = {}
        for name in sorted(prompt.objects):
            try:
                objects[name] = bool(matching_detections(name, detections, self.vocabulary))
            except UnknownNameError:
                objects[name] = None
        # Together if possible: of two objects of one name, each relation is then about the right one.
        relations = self._held(prompt, detections)
        if None in relations:
            alone = [replace(prompt, relations=(relation,)) for relation in prompt.relations]
            relations = [self._held(one, detections)[0] for one in alone]
        return {"objects": objects, "relations": relations}

    def _held(self, prompt: BenchmarkPrompt, detections: Sequence[Detection]) -> list[bool | None]:
        """For each relation of a prompt whether it holds; None if the detector does not know an object of them all."""
        try:
            return list(self.score(prompt, detections)["held"])
        except UnknownNameError:
            return [None] * len(prompt.relations)

    def require_objects(self, prompts: Iterable[BenchmarkPrompt], rule: Rule = score_relations) -> None:
        """Check that the vocabulary covers the objects of all prompts.

        Args:
            prompts: The prompts to be scored.
            rule: The rule that will score them.

        Raises:
            UnknownNameError: A prompt names an object outside the vocabulary.
        """
        for prompt in prompts:
            self.score(prompt, [], rule)


def load_scorer(name: str, device: str = "cpu") -> Scorer:
    """Load a detector and run its self-test.

    Args:
        name: A detector's name, or "name:SOURCE" for other weights of it (a folder or hub id).
        device: The torch device of the detector.

    Returns:
        The scorer.

    Raises:
        UnknownNameError: There is no such detector.
        DataError: The weights are missing or unusable, or the detector fails its self-test.
    """
    scorer = Scorer.load(name, device)
    run_self_test(scorer)
    return scorer


def default_detector(model: str | None) -> str:
    """Get the name of the detector for images of a model.

    A model's variant names it.

    Args:
        model: The model's name; None if unknown.

    Returns:
        The detector's name.

    Raises:
        DataError: No detector is known for the model. None is chosen silently: a detector that does not know the
            objects of an image would score it as wrong.
    """
    variant = named_variant(model) if model else None
    if variant is None or variant.detector is None:
        raise DataError(
            f"name a --detector for images of {model or 'an unknown model'}: mask2former finds COCO's objects, owlv2 "
            "and grounding-dino any object"
        )
    return variant.detector


def detection_query(prompt: BenchmarkPrompt) -> Query:
    """The query for an image of ``prompt``: its objects, and whether it needs colours."""
    return Query(tuple(sorted(prompt.objects)), any("color" in e for e in prompt.metadata.get("include", ())))


def require_repeatable(scorer: Scorer, image: Image, prompt: BenchmarkPrompt, name: str = "its first image") -> None:
    """Check that a detector reports the same for an image alone and in a batch.

    Args:
        scorer: The detector.
        image: An image.
        prompt: Its prompt.
        name: What error messages call the image.

    Raises:
        DataError: The detections differ by more than rounding.
    """
    alone = scorer.detect([image], [prompt])[0]
    for again in scorer.detect([image, image], [prompt] * 2):
        if len(again) != len(alone) or not all(any(_same(one, other) for other in again) for one in alone):
            raise DataError(
                f"the detector {scorer.detector.name} contradicts itself on {name}: the {len(alone)} detections in "
                f"the image alone differ from the {len(again)} in a batch, so nothing is scored; repair its "
                "installation or choose another --detector"
            )


def require_finite(detections: Iterable[Detection]) -> None:
    """Raise DataError for a score outside [0, 1] or a box edge that is not a finite number."""
    for one in detections:
        numbers = (one.score, *one.box)
        if not all(math.isfinite(float(number)) for number in numbers) or not 0 <= one.score <= 1:
            raise DataError(
                f"the detector reports {one}: a score outside 0 to 1, or an edge that is no number; nothing is scored; "
                "repair its installation or choose another --detector"
            )


def require_some(scorer: Scorer, boxes: Sequence[Sequence[Any]], remedy: str) -> None:
    """Check that a detector finds something in at least one of many images.

    Args:
        scorer: The detector.
        boxes: Its detections, image by image.
        remedy: What else the user can do, for the error message.

    Raises:
        DataError: There are ``MANY_IMAGES`` or more images, and it found nothing in any of them.
    """
    if len(boxes) >= MANY_IMAGES and not any(boxes):
        raise DataError(
            f"the detector {scorer.detector.name} sees nothing in any of {len(boxes)} images, so nothing is scored; "
            f"its weights or its installation may be broken ({scorer.identity}); repair it, {remedy}"
        )


def _same(one: Detection, other: Detection) -> bool:
    """Whether two detections differ by rounding only."""
    close = abs(one.score - other.score) < SAME_SCORE and iou(one.box, other.box) > SAME_IOU
    return one.name == other.name and close
