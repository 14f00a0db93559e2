"""The detector ``emoji-templates``: template matching, some 0.2 seconds of one core an image.

It shares neither method nor weights with the detector ``emoji``, so that one can verify images while the other scores
them. ``training/template_agreement.py`` measures how far the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from learn_to_steer.detectors import Detector, Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji import template_filters, template_matching
from learn_to_steer_emoji.self_test import self_test_images as self_test_images
from learn_to_steer_emoji.sprites import canonical_names


class TemplateDetector:
    """Finds emoji sprites by template matching, on the CPU."""

    name = "emoji-templates"
    tells_colors = False
    counting: float | None = template_matching.THRESHOLD

    def __init__(self) -> None:
        """Make the detector."""
        self.identity: Mapping[str, Any] = {
            "name": self.name,
            "filters": template_filters.digest(),
            "weights": list(template_matching.WEIGHTS),
            "threshold": template_matching.THRESHOLD,
        }

    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find the sprites.

        Args:
            images: Images of any sizes.
            queries: Have no effect: the detector reports all that it knows.

        Returns:
            The detections of each image, highest score first.
        """
        return [template_matching.find(image) for image in images]


def vocabulary() -> dict[str, str]:
    """Return a dict from every word that the detector answers to, aliases included, to the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """Make the detector.

    Args:
        device: Ignored: it runs on the CPU.
        source: Must be None: there are no other weights.

    Returns:
        The detector.

    Raises:
        DataError: A ``source`` is given.
    """
    if source is not None:
        raise DataError(f"the detector emoji-templates has no weights; leave out {source!r}")
    return TemplateDetector()
