"""Grounding DINO, an open-vocabulary detector: it looks for any name.

Source: arXiv 2303.05499; transformers' port of it.

Differs: given a text with several objects, the network labels a box with a part of the text, which may mix two names.
Here the network runs once for each name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from learn_to_steer.detectors._networks import (
    IMAGENET_COLORS,
    encode,
    keep_ratio,
    load_network,
    load_tokenizer,
    normalise,
    resize,
    to_tensor,
)
from learn_to_steer.detectors._open_vocabulary import OpenVocabularyDetector, detections
from learn_to_steer.detectors.base import Detector
from learn_to_steer.geometry import Detection

DEFAULT = "IDEA-Research/grounding-dino-tiny"
THRESHOLD = 0.25  # usual in its authors' examples
SHORT, LONG = 800, 1333  # pixels: upper limits of the sides of the resized image


class GroundingDinoDetector(OpenVocabularyDetector):
    """Grounding DINO as a detector.

    Args:
        model: A GroundingDinoForObjectDetection of transformers.
        tokenizer: Its tokenizer.
        weights: Which weights it has, for ``identity``.
        threshold: Score above which a box counts.
    """

    name = "grounding-dino"

    def __init__(self, model: Any, tokenizer: Any, weights: str = "", threshold: float = THRESHOLD) -> None:
        super().__init__(model, tokenizer, weights, threshold)

    def _detect_one(self, image: Image, names: Sequence[str]) -> list[Detection]:
        size = keep_ratio((image.height, image.width), SHORT, LONG)
        pixels = resize(to_tensor(image).to(self.model.device), size, antialias=True).round()
        pixels = normalise(pixels, IMAGENET_COLORS)
        detected = []
        for name in names:
            tokens = encode(self.tokenizer, [text_for(name)], self.model.config.max_text_len, self.model.device)
            output = self.model(pixel_values=pixels, **tokens)
            detected += read_output(output.logits[0], output.pred_boxes[0], name, image.size, self.threshold)
        return sorted(detected, key=lambda one: -one.score)


def text_for(name: str) -> str:
    """The text for one name: lower case, with a full stop."""
    return f"{name.lower().strip(' .')}."


def read_output(
    logits: Float[Tensor, "queries tokens"],
    boxes: Float[Tensor, "queries 4"],
    name: str,
    size: tuple[int, int],
    threshold: float = THRESHOLD,
) -> list[Detection]:
    """Turn the network's output for one name and one image into detections.

    Args:
        logits: One logit for each query and text token, -inf after the end of the text. A query's score is the
            sigmoid of its highest logit.
        boxes: Centre x, centre y, width and height, as fractions of the image.
        name: The object's name.
        size: Width and height of the image in pixels.
        threshold: Score that a detection must exceed.

    Returns:
        The detections, highest score first.
    """
    frame = (float(size[0]), float(size[1]))
    return detections(name, logits.sigmoid().amax(-1), boxes, frame, size, threshold)


def vocabulary() -> None:
    """None: the detector looks for any word."""
    return


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """Load the detector.

    Args:
        device: The torch device.
        source: A folder or hub id of weights; None for the default ones.

    Returns:
        The detector.

    Raises:
        DataError: The weights cannot be loaded.
    """
    from transformers import GroundingDinoForObjectDetection

    source = source or DEFAULT
    model, weights = load_network(GroundingDinoForObjectDetection, source, device)
    return GroundingDinoDetector(model, load_tokenizer(source, model.config.text_config.vocab_size), weights)
