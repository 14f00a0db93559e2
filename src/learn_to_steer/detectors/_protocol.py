"""What every detector offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from learn_to_steer.geometry import Detection

if TYPE_CHECKING:
    from PIL.Image import Image


class Detector(Protocol):
    """Finds named objects in pictures. A detector's module offers ``load(device) -> Detector``, and
    ``vocabulary()``: every word it answers to -> the class it reports.

    ``tells_colors`` says whether its detections carry their colours, as GenEval's colour tasks need; these are
    red, orange, yellow, green, blue, purple, pink, brown, black and white.
    """

    name: str
    tells_colors: bool

    def detect(self, pictures: Sequence[Image]) -> list[list[Detection]]:
        """Detections of each picture: canonical object names, scores in [0, 1], boxes in the picture's pixels."""
        ...
