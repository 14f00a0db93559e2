"""What the detectors that answer to any word share: the words asked, and the boxes of one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image

from learn_to_steer.detectors._pictures import upright
from learn_to_steer.detectors._protocol import Asked
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection, iou

OVERLAP = 0.5  # intersection over union above which two boxes of a word are one object


class OpenDetector:
    """A network of transformers that draws boxes around what its text names; ``weights`` says which weights it has."""

    name: str
    tells_colors = False
    counting: float | None = None

    def __init__(self, model: Any, tokenizer: Any, weights: str, threshold: float) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.threshold = threshold
        self.identity: Mapping[str, Any] = {
            "name": self.name,
            "weights": weights,
            "threshold": threshold,
            "overlap": OVERLAP,
        }

    @torch.no_grad()
    def detect(self, pictures: Sequence[Image], asked: Sequence[Asked] | None = None) -> list[list[Detection]]:
        """Detections of the names asked of each picture, best first. Raises DataError when there are none."""
        names = names_asked(self.name, pictures, asked)
        return [self._find(upright(picture), words) for picture, words in zip(pictures, names, strict=True)]

    def _find(self, picture: Image, names: Sequence[str]) -> list[Detection]:
        raise NotImplementedError


def names_asked(who: str, pictures: Sequence[Any], asked: Sequence[Asked] | None) -> list[tuple[str, ...]]:
    """The distinct names asked of each picture; DataError where there are none, for the detector ``who``."""
    if asked is None or not all(one.names for one in asked):
        raise DataError(f"the detector {who} finds only objects that it is told; say what to look for in each picture")
    if len(asked) != len(pictures):
        raise DataError(f"{len(pictures)} pictures, but objects to look for in {len(asked)}; give one Asked a picture")
    return [tuple(dict.fromkeys(one.names)) for one in asked]


def detections(
    name: str,
    scores: torch.Tensor,
    boxes: torch.Tensor,
    frame: tuple[float, float],
    size: tuple[int, int],
    threshold: float,
) -> list[Detection]:
    """Detections of ``name``, best first: scores above ``threshold``, no two that overlap by more than OVERLAP.

    ``scores`` (n,) in [0, 1]; ``boxes`` (n, 4) centre x, centre y, width and height as shares of ``frame``, which is
    (width, height) in pixels of the picture, from its upper left corner. Boxes are clipped to ``size``, the picture's
    (width, height); what is then less than a pixel wide or high lay outside of it and is dropped.
    """
    kept: list[Detection] = []
    sure = (scores > threshold).nonzero()[:, 0]
    for index in sure[scores[sure].argsort(descending=True, stable=True)].tolist():
        box = _corners(boxes[index].tolist(), frame, size)
        if min(box[2] - box[0], box[3] - box[1]) >= 1 and all(iou(box, other.box) <= OVERLAP for other in kept):
            kept.append(Detection(name, float(scores[index]), box))
    return kept


def _corners(box: Sequence[float], frame: tuple[float, float], size: tuple[int, int]) -> Box:
    x, y, width, height = box
    x0, x1 = ((x + side * width / 2) * frame[0] for side in (-1, 1))
    y0, y1 = ((y + side * height / 2) * frame[1] for side in (-1, 1))
    return (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
