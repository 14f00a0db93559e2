"""A second detector of the emoji world's sprites: template matching, nothing learned, a second a picture.

It sees fewer of the objects that a model draws than ``emoji`` does (their agreement: docs/results.md). What it is
good for: a judge that shares nothing with the first, where one detector checks pictures that the other scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from learn_to_steer.detectors._protocol import Asked, Detector
from learn_to_steer.emoji import judge
from learn_to_steer.emoji.known import known as known
from learn_to_steer.emoji.sprites import canonical_names
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection


class TemplateDetector:
    """Matches the packaged sprites themselves, on the CPU."""

    name = "emoji-templates"
    tells_colors = False
    counting: float | None = None
    identity: Mapping[str, Any] = {"name": name, "threshold": judge.THRESHOLD}

    def detect(self, pictures: Sequence[Image], asked: Sequence[Asked] | None = None) -> list[list[Detection]]:
        """Detections of each picture, best first; scores are explained variance."""
        return [judge.find(picture) for picture in pictures]


def vocabulary() -> dict[str, str]:
    """Every word the detector answers to, aliases included -> the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """The detector; DataError for a ``source``, since it has no weights. It works on the CPU, whatever ``device``."""
    if source is not None:
        raise DataError(f"the detector emoji-templates has no weights to load from {source}; leave them out")
    return TemplateDetector()
