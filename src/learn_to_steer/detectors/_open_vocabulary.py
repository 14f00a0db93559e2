"""What open-vocabulary detectors share: the names to look for, and the boxes of one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from learn_to_steer.detectors._networks import upright
from learn_to_steer.detectors.base import Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection, iou

OVERLAP = 0.5  # IoU above which two boxes of a name are one object


class OpenVocabularyDetector:
    """Base of detectors whose network draws boxes around what a text names.

    Args:
        model: The network, of transformers.
        tokenizer: Its tokenizer.
        weights: Which weights it has, for ``identity``.
        threshold: Score above which a box counts.
    """

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
    def detect(self, pictures: Sequence[Image], asked: Sequence[Query] | None = None) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        names = names_asked(self.name, pictures, asked)
        return [self._find(upright(picture), words) for picture, words in zip(pictures, names, strict=True)]

    def _find(self, picture: Image, names: Sequence[str]) -> list[Detection]:
        raise NotImplementedError


def names_asked(who: str, pictures: Sequence[Any], asked: Sequence[Query] | None) -> list[tuple[str, ...]]:
    """The distinct names to look for in each image.

    Args:
        who: Name of the detector, for messages.
        pictures: The images.
        asked: What to look for in each.

    Returns:
        Names without repetition, in order.

    Raises:
        DataError: There are no names for an image.
    """
    if asked is None or not all(one.names for one in asked):
        raise DataError(f"the detector {who} finds only objects that it is told; say what to look for in each picture")
    if len(asked) != len(pictures):
        raise DataError(f"{len(pictures)} pictures, but objects to look for in {len(asked)}; give one Asked a picture")
    return [tuple(dict.fromkeys(one.names)) for one in asked]


def detections(
    name: str,
    scores: Float[Tensor, " n"],
    boxes: Float[Tensor, "n 4"],
    frame: tuple[float, float],
    size: tuple[int, int],
    threshold: float,
) -> list[Detection]:
    """Turn a network's boxes of one name into detections, with greedy non-maximum suppression.

    Args:
        name: The object's name.
        scores: Scores in [0, 1].
        boxes: Centre x, centre y, width and height, as fractions of ``frame``.
        frame: Width and height that the boxes refer to, in pixels of the image from its upper left corner.
        size: Width and height of the image. Boxes are clipped to it, and dropped if less than a pixel remains.
        threshold: Score that a detection must exceed.

    Returns:
        Detections, best first, no two of which overlap by an IoU above OVERLAP.
    """
    kept: list[Detection] = []
    sure = (scores > threshold).nonzero()[:, 0]
    for index in sure[scores[sure].argsort(descending=True, stable=True)].tolist():
        box = _clipped_corners(boxes[index].tolist(), frame, size)
        if min(box[2] - box[0], box[3] - box[1]) >= 1 and all(iou(box, other.box) <= OVERLAP for other in kept):
            kept.append(Detection(name, float(scores[index]), box))
    return kept


def _clipped_corners(box: Sequence[float], frame: tuple[float, float], size: tuple[int, int]) -> Box:
    """Corners (x0, y0, x1, y1) in pixels, inside the image."""
    x, y, width, height = box
    x0, x1 = ((x + side * width / 2) * frame[0] for side in (-1, 1))
    y0, y1 = ((y + side * height / 2) * frame[1] for side in (-1, 1))
    return (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
