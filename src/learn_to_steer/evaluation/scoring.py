"""The scorer: a detector that has passed its self-test, and the verdict on what it finds in an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from learn_to_steer import geometry, registry
from learn_to_steer.benchmarks import BenchmarkPrompt, Rule, Size, matching_detections, score_relations
from learn_to_steer.detectors.base import Detector, Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection, iou
from learn_to_steer.model_names import named_variant

SELF_TEST_IOU = 0.6  # a box matches the known one above this overlap
SAME_IOU, SAME_SCORE = 0.9, 0.01  # two runs on one image agree up to this overlap and this difference of scores
MANY_IMAGES = 8  # a working detector finds something in at least one of so many


@dataclass(frozen=True)
class Scorer:
    """A detector and what its module says about it.

    Attributes:
        detector: Finds objects in images.
        vocabulary: Every word the detector answers to -> the class it reports; None if it answers to any word.
        self_test_images: Makes images together with the objects that are certainly in them; None if the module has
            none.
    """

    detector: Detector
    vocabulary: Mapping[str, str] | None
    self_test_images: Callable[[], list[tuple[Image, list[Detection]]]] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what the detector finds. Results of two identities are never mixed."""
        return dict(self.detector.identity)

    def detect(self, images: Sequence[Image], prompts: Sequence[BenchmarkPrompt]) -> list[list[Detection]]:
        """Detect in each image the objects of its prompt.

        Args:
            images: The images.
            prompts: One prompt per image.

        Returns:
            The detections of each image, boxes in its pixels.
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
            detections: What was detected in the image.
            rule: The benchmark's rule.
            size: Width and height of the image in pixels, for rules that need them.

        Returns:
            The verdict, as part of a row of ``results.jsonl``: ``correct``, ``present``, ``held``, ``reason`` and
            ``scores`` are the rule's. ``once``: every object named by a relation was detected exactly once (None
            without relations). ``on_axis``: per relation, whether the centres of the best boxes lie on the correct
            side of each other by any amount (None where an object is missing). ``boxes``: the detections.

        Raises:
            UnknownNameError: The prompt names an object outside the vocabulary.
        """
        score = rule(prompt, detections, self.vocabulary, size)
        on_axis: list[bool | None] = []
        once = True if prompt.relations else None
        for relation in prompt.relations:
            subjects = matching_detections(relation.subject, detections, self.vocabulary)
            references = matching_detections(relation.object, detections, self.vocabulary)
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
            "boxes": [_box_entry(one) for one in detections],
        }

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
    """Load a detector and test it on the images that its module knows.

    Args:
        name: A detector's name, or "name:SOURCE" for other weights of its kind (a folder or hub id).
        device: Where the detector runs.

    Returns:
        The scorer.

    Raises:
        UnknownNameError: There is no such detector.
        DataError: The weights are missing or unusable, or the detector fails its self-test.
    """
    kind, _, source = name.partition(":")
    module = registry.load("detectors", kind)
    scorer = Scorer(module.load(device, source or None), module.vocabulary(), getattr(module, "self_test_images", None))
    run_self_test(scorer)
    return scorer


def default_detector(model: str | None) -> str:
    """Name the detector for images of a model: the one that its variant names.

    Args:
        model: The model's name; None if unknown.

    Returns:
        The detector's name.

    Raises:
        DataError: No detector is known for the model. One that does not know what is in an image would score it as
            wrong.
    """
    variant = named_variant(model) if model else None
    if variant is None or variant.detector is None:
        raise DataError(
            f"name a --detector for images of {model or 'an unknown model'}: mask2former knows COCO's objects, owlv2 "
            "and grounding-dino any word"
        )
    return variant.detector


def detection_query(prompt: BenchmarkPrompt) -> Query:
    """Say what a detector has to look for in an image of ``prompt``."""
    return Query(tuple(sorted(prompt.objects)), any("color" in e for e in prompt.metadata.get("include", ())))


def run_self_test(scorer: Scorer) -> None:
    """Check that a detector finds every object of its self-test images.

    This catches wrong labels and shifted boxes, which look healthy otherwise. Detectors without such images pass:
    what they find depends on their weights, and none come with the package.

    Args:
        scorer: The detector with its self-test images.

    Raises:
        DataError: The detector misses or misplaces an object.
    """
    if scorer.self_test_images is None:
        return
    samples = scorer.self_test_images()
    queries = [Query(tuple(one.name for one in expected)) for _, expected in samples]
    detected = scorer.detector.detect([image for image, _ in samples], queries)
    lost = [
        one.name
        for (_, expected), detections in zip(samples, detected, strict=True)
        for one in expected
        if not any(other.name == one.name and iou(other.box, one.box) > SELF_TEST_IOU for other in detections)
    ]
    if lost:
        raise DataError(
            f"the detector {scorer.detector.name} fails its self-test: it does not find {', '.join(lost)} in images "
            f"made for it; its weights or its installation are broken ({scorer.identity}); nothing is scored"
        )


def require_repeatable(scorer: Scorer, image: Image, prompt: BenchmarkPrompt, name: str = "its first image") -> None:
    """Check that a detector finds the same in an image alone and in a batch.

    Args:
        scorer: The detector.
        image: An image.
        prompt: Its prompt.
        name: What error messages call the image.

    Raises:
        DataError: The results differ by more than rounding.
    """
    alone = scorer.detect([image], [prompt])[0]
    for again in scorer.detect([image, image], [prompt] * 2):
        if len(again) != len(alone) or not all(any(_same(one, other) for other in again) for one in alone):
            raise DataError(
                f"the detector {scorer.detector.name} contradicts itself on {name}: {len(alone)} objects alone, "
                f"{len(again)} in a batch; its installation is broken, so nothing is scored"
            )


def require_finite(detections: Iterable[Detection]) -> None:
    """Raise DataError for a score outside [0, 1] or a box edge that is not a finite number."""
    for one in detections:
        numbers = (one.score, *one.box)
        if not all(math.isfinite(float(number)) for number in numbers) or not 0 <= one.score <= 1:
            raise DataError(
                f"the detector reports {one}: a score outside 0 to 1, or an edge that is no number; its installation "
                "is broken, so nothing is scored"
            )


def require_some(scorer: Scorer, boxes: Sequence[Sequence[Any]], remedy: str) -> None:
    """Check that a detector finds something in at least one of many images.

    Args:
        scorer: The detector.
        boxes: What it found, image by image.
        remedy: What else the user can do, for the error message.

    Raises:
        DataError: Nothing was found in ``MANY_IMAGES`` or more.
    """
    if len(boxes) >= MANY_IMAGES and not any(boxes):
        raise DataError(
            f"the detector {scorer.detector.name} sees nothing in any of {len(boxes)} images; its weights or its "
            f"installation are broken ({scorer.identity}), nothing is scored; repair it, {remedy}"
        )


def _same(one: Detection, other: Detection) -> bool:
    """Whether two detections differ by rounding only."""
    close = abs(one.score - other.score) < SAME_SCORE and iou(one.box, other.box) > SAME_IOU
    return one.name == other.name and close


def _box_entry(one: Detection) -> dict[str, Any]:
    color = {"color": one.color} if one.color else {}
    box = [round(float(edge), 2) for edge in one.box]
    return {"name": one.name, "score": round(one.score, 4), **color, "box": box}
