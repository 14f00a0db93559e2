"""The detector ``emoji-templates``: template matching. Nothing is learned, and an image takes about a second.

It finds fewer of the objects that a model draws than the detector ``emoji`` (docs/results.md says how many). The two
share no method and no weights, so that one can verify images while the other scores them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from learn_to_steer.detectors import Detector, Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.self_test import self_test_images as self_test_images
from learn_to_steer_emoji.sprites import canonical_names


class TemplateDetector:
    """Finds emoji sprites by template matching with the packaged sprites, on the CPU."""

    name = "emoji-templates"
    tells_colors = False
    counting: float | None = None
    identity: Mapping[str, Any] = {"name": name, "threshold": template_matching.THRESHOLD}

    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find the sprites.

        Args:
            images: Images of any sizes.
            queries: Have no effect: the detector reports all that it knows.

        Returns:
            The detections of each image, highest score first. A score is the share of the variance that is explained.
        """
        return [template_matching.find(image) for image in images]


def vocabulary() -> dict[str, str]:
    """Return a dict from every word that the detector answers to, aliases included, to the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """Make the detector.

    Args:
        device: Ignored: it runs on the CPU.
        source: Must be None: there are no weights.

    Returns:
        The detector.

    Raises:
        DataError: A ``source`` is given.
    """
    if source is not None:
        raise DataError(f"the detector emoji-templates has no weights; leave out {source!r}")
    return TemplateDetector()
