"""The self-test of a detector: it has to find the objects of images that its module draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from learn_to_steer.detectors.base import Detector, Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection, iou

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_IOU = 0.6  # a box must overlap the expected one by a higher IoU


class LoadedDetector(Protocol):
    """A detector with what its module offers beside it; see ``base``."""

    @property
    def detector(self) -> Detector:
        """Finds objects in images."""

    @property
    def self_test_images(self) -> Callable[[], list[tuple[Image, list[Detection]]]] | None:
        """Makes images, each with the detections that the detector must report; None if its module has none."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that the detections depend on."""


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
