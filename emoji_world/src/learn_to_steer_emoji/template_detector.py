"""The detector ``emoji-templates``: template matching, nothing learned, about a second for a picture.

It finds fewer of the objects that a model draws than the detector ``emoji`` does (docs/results.md has their agreement).
It shares nothing with that one, so that one of them can check pictures while the other scores them.
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
    """Matches the packaged sprites themselves, on the CPU."""

    name = "emoji-templates"
    tells_colors = False
    counting: float | None = None
    identity: Mapping[str, Any] = {"name": name, "threshold": template_matching.THRESHOLD}

    def detect(self, pictures: Sequence[Image], asked: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find the sprites.

        Args:
            pictures: Pictures of any sizes.
            asked: Not needed: the detector reports all it knows.

        Returns:
            Detections of each picture, best first; scores are explained variance.
        """
        return [template_matching.find(picture) for picture in pictures]


def vocabulary() -> dict[str, str]:
    """Every word the detector understands, aliases included -> the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """Make the detector.

    Args:
        device: Ignored: it runs on the CPU.
        source: Must be None, for there are no weights.

    Returns:
        The detector.

    Raises:
        DataError: A ``source`` is given.
    """
    if source is not None:
        raise DataError(f"the detector emoji-templates has no weights to load from {source}; leave them out")
    return TemplateDetector()
