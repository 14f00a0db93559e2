"""Loads detectors by their names, and tests them: the objects of images that their modules draw have to be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from learn_to_steer import registry
from learn_to_steer.detectors.base import Detector, Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection, iou

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_IOU = 0.6  # a box must overlap the expected one by a higher IoU


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with what its module offers beside it; see ``base``.

    Attributes:
        detector: Finds objects in images.
        vocabulary: Every word that the detector knows -> the class it reports; None if it looks for any word.
        self_test_images: Makes images, each with the detections that the detector must report; None if its module
            has none.
    """

    detector: Detector
    vocabulary: Mapping[str, str] | None
    self_test_images: Callable[[], list[tuple[Image, list[Detection]]]] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """All that the detections depend on. Results of different identities are never mixed."""
        return dict(self.detector.identity)

    @classmethod
    def load(cls, name: str, device: str = "cpu") -> Self:
        """Load a detector. It is not tested.

        Args:
            name: A detector's name, or "name:SOURCE" for other weights of it (a folder or hub id).
            device: The torch device of the detector.

        Raises:
            UnknownNameError: There is no such detector.
            DataError: Its weights are missing or unusable.
        """
        kind, _, source = name.partition(":")
        module = registry.load("detectors", kind)
        images = getattr(module, "self_test_images", None)
        return cls(module.load(device, source or None), module.vocabulary(), images)


def run_self_test(loaded: LoadedDetector) -> None:
    """Check that a detector finds every object of its self-test images.

    This catches wrong labels and shifted boxes, which would otherwise go unnoticed. Detectors without such images
    pass: their detections depend on weights that do not come with the package.

    Args:
        loaded: The detector with its self-test images.

    Raises:
        DataError: The detector misses or misplaces an object.
    """
    if loaded.self_test_images is None:
        return
    samples = loaded.self_test_images()
    queries = [Query(tuple(one.name for one in expected)) for _, expected in samples]
    detected = loaded.detector.detect([image for image, _ in samples], queries)
    missed = [
        one.name
        for (_, expected), detections in zip(samples, detected, strict=True)
        for one in expected
        if not any(other.name == one.name and iou(other.box, one.box) > LEAST_IOU for other in detections)
    ]
    if missed:
        raise DataError(
            f"the detector {loaded.detector.name} fails its self-test, so nothing is scored: it does not find "
            f"{', '.join(missed)} in its test images; its weights or its installation are broken ({loaded.identity}); "
            "install them again, or choose another --detector"
        )
