"""What open-vocabulary detectors share: the names to look for, and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from learn_to_steer.detectors.base import Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection, iou
from learn_to_steer.image_files import to_rgb

OVERLAP = 0.5  # IoU above which two boxes of a name are one object


class OpenVocabularyDetector:
    """Base of detectors whose network takes an image and a text, and returns boxes.

    Args:
        model: The network, of transformers.
        tokenizer: Its tokenizer.
        weights: Which weights it has, for ``identity``.
        threshold: Score above which a box is reported.
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
    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        names = names_per_image(self.name, images, queries)
        return [self._detect_one(to_rgb(image), each) for image, each in zip(images, names, strict=True)]

    def _detect_one(self, image: Image, names: Sequence[str]) -> list[Detection]:
        """The detections in an RGB image, highest score first."""
        raise NotImplementedError


def names_per_image(detector: str, images: Sequence[Image], queries: Sequence[Query] | None) -> list[tuple[str, ...]]:
    """The distinct names to look for in each image.

    Args:
        detector: Name of the detector, for messages.
        images: The images.
        queries: One query for each image.

    Returns:
        The names of each query, in order, without repetition.

    Raises:
        DataError: A query has no names, or there are more or fewer queries than images.
    """
    if queries is None or not all(query.names for query in queries):
        raise DataError(f"the detector {detector} has no vocabulary; give a Query with names for each image")
    if len(queries) != len(images):
        raise DataError(
            f"the detector {detector} got {len(images)} images and {len(queries)} queries; give one Query an image"
        )
    return [tuple(dict.fromkeys(query.names)) for query in queries]


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
        frame: Width and height of the area that the boxes refer to, in pixels. Its upper left corner is the image's.
        size: Width and height of the image in pixels. Boxes are clipped to the image, and dropped if they are then less
            than a pixel wide or high.
        threshold: Score that a detection must exceed.

    Returns:
        The detections, highest score first. No two overlap by an IoU above OVERLAP.
    """
    kept: list[Detection] = []
    candidates = (scores > threshold).nonzero()[:, 0]
    for index in candidates[scores[candidates].argsort(descending=True, stable=True)].tolist():
        box = _clipped_corners(boxes[index].tolist(), frame, size)
        if min(box[2] - box[0], box[3] - box[1]) >= 1 and all(iou(box, other.box) <= OVERLAP for other in kept):
            kept.append(Detection(name, float(scores[index]), box))
    return kept


def _clipped_corners(box: Sequence[float], frame: tuple[float, float], size: tuple[int, int]) -> Box:
    """Corners (x0, y0, x1, y1) in pixels, clipped to the image."""
    x, y, width, height = box
    x0, x1 = ((x + side * width / 2) * frame[0] for side in (-1, 1))
    y0, y1 = ((y + side * height / 2) * frame[1] for side in (-1, 1))
    return (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
