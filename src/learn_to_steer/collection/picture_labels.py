"""Labels of pictures that a model drew: the relation of two objects, as far as all detectors agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from learn_to_steer.benchmarks import detector_class, matching_detections
from learn_to_steer.detectors import LoadedDetector, Query, run_self_test
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.geometry import NEUTRAL, Detection, iou, label_of

SAME = 0.8  # IoU above which the boxes of two objects may be two names of one thing
SEVERAL = "pair: one of its objects is seen more than once"
MISSING = "pair: both of its objects are missing"
NEARLY_SAME = "pair: boxes nearly the same"
DISAGREE = "pair: the detectors disagree"

Detections = Sequence[Detection]


@dataclass(frozen=True)
class Verdict:
    """What is seen of two objects in a picture.

    Attributes:
        label: Their relation; "is" if one of them is missing. None if the pair cannot be used.
        lacks_one: Whether one of them is missing, and the other one there once.
        reason: Why the pair cannot be used.
    """

    label: str | None
    lacks_one: bool = False
    reason: str = ""


class LabellingDetector(LoadedDetector):
    """A detector that labels pictures, with its vocabulary and its self-test images."""

    def knows(self, name: str) -> bool:
        """Tell whether the detector can look for an object."""
        if self.vocabulary is None:
            return True
        try:
            detector_class(name, self.vocabulary)
        except UnknownNameError:
            return False
        return True

    def verdict(self, detections: Detections, subject: str, reference: str, diagonals: bool) -> Verdict:
        """Tell what is seen of two objects.

        Args:
            detections: All detections in the picture.
            subject: The one object.
            reference: The other one.
            diagonals: Whether diagonals are relations of their own.
        """
        first, second = (matching_detections(name, detections, self.vocabulary) for name in (subject, reference))
        if len(first) > 1 or len(second) > 1:
            return Verdict(None, reason=SEVERAL)
        if not first and not second:
            return Verdict(None, reason=MISSING)
        if not first or not second:
            return Verdict(NEUTRAL, lacks_one=True)
        if iou(first[0].box, second[0].box) > SAME:
            return Verdict(None, reason=NEARLY_SAME)
        return Verdict(label_of(first[0].box, second[0].box, diagonals))


class PictureLabels:
    """Labels pictures with one detector or more.

    Args:
        detectors: The detectors.
        diagonals: Whether diagonals are relations of their own.
    """

    def __init__(self, detectors: Sequence[LabellingDetector], diagonals: bool = False) -> None:
        self.detectors, self.diagonals = tuple(detectors), diagonals

    @property
    def identities(self) -> list[dict[str, Any]]:
        """All that the labels depend on, for every detector."""
        return [one.identity for one in self.detectors]

    def known(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of some objects that every detector knows."""
        return tuple(name for name in names if all(one.knows(name) for one in self.detectors))

    def detect(self, images: Sequence[Image], objects: Sequence[Sequence[str]]) -> list[tuple[Detections, ...]]:
        """Find objects.

        Args:
            images: The pictures.
            objects: The names of the objects of each picture.

        Returns:
            For each picture, the detections of every detector.
        """
        queries = [Query(tuple(names)) for names in objects]
        found = [one.detector.detect(images, queries) for one in self.detectors]
        return list(zip(*found, strict=True))

    def verdict(self, found: Sequence[Detections], subject: str, reference: str) -> Verdict:
        """Tell what all detectors see of two objects.

        Args:
            found: The detections of every detector in one picture.
            subject: The one object.
            reference: The other one.

        Returns:
            What they agree on.
        """
        verdicts = [
            one.verdict(detections, subject, reference, self.diagonals)
            for one, detections in zip(self.detectors, found, strict=True)
        ]
        unusable = [verdict for verdict in verdicts if verdict.label is None]
        if unusable:
            return unusable[0]
        return verdicts[0] if len(set(verdicts)) == 1 else Verdict(None, reason=DISAGREE)


def load_labels(names: str, device: str, diagonals: bool = False) -> PictureLabels:
    """Load the detectors that label pictures.

    Args:
        names: One name or more, separated by commas; each "name" or "name:SOURCE" (a folder or hub id with weights).
        device: The torch device.
        diagonals: Whether diagonals are relations of their own.

    Raises:
        DataError: Two of them are the same, a name is empty, weights cannot be loaded, or a self-test fails.
        UnknownNameError: There is no such detector.
    """
    chosen = [name.strip() for name in names.split(",")]
    if len(set(chosen)) < len(chosen) or not all(chosen):
        raise DataError(f"the detectors {names!r} have to be different; give names such as 'owlv2,grounding-dino'")
    loaded = []
    for name in chosen:
        loaded.append(LabellingDetector.load(name, device))
        run_self_test(loaded[-1])
    return PictureLabels(loaded, diagonals)
