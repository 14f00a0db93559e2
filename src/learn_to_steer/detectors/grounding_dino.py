"""Grounding DINO, an open-vocabulary detector: it looks for any name, one at a time.

Source: arXiv 2303.05499; transformers' port of it.

Differs: for a text with several objects it answers with parts of the text, which can merge two names. Here every name
is a text of its own.
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

    def _find(self, picture: Image, names: Sequence[str]) -> list[Detection]:
        size = keep_ratio((picture.height, picture.width), SHORT, LONG)
        pixels = resize(to_tensor(picture).to(self.model.device), size, antialias=True).round()
        pixels = normalise(pixels, IMAGENET_COLORS)
        every = []
        for name in names:
            tokens = encode(self.tokenizer, [text_for(name)], self.model.config.max_text_len, self.model.device)
            answer = self.model(pixel_values=pixels, **tokens)
            every += found(answer.logits[0], answer.pred_boxes[0], name, picture.size, self.threshold)
        return sorted(every, key=lambda one: -one.score)


def text_for(name: str) -> str:
    """The text for one name: lower case, with a full stop."""
    return f"{name.lower().strip(' .')}."


def found(
    logits: Float[Tensor, "queries tokens"],
    boxes: Float[Tensor, "queries 4"],
    name: str,
    size: tuple[int, int],
    threshold: float = THRESHOLD,
) -> list[Detection]:
    """The detections in the network's output for one name and one image.

    Args:
        logits: One logit a query and text token, -inf after the end of the text. The best token is the query's score.
        boxes: Centre x, centre y, width and height, as fractions of the image.
        name: The name.
        size: Width and height of the image in pixels.
        threshold: Score that a detection must exceed.

    Returns:
        Detections, best first.
    """
    frame = (float(size[0]), float(size[1]))
    return detections(name, logits.sigmoid().amax(-1), boxes, frame, size, threshold)


def vocabulary() -> None:
    """None, since it answers to any word."""
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
