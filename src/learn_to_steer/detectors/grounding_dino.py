"""Grounding DINO, an open-vocabulary detector: looks for whatever it is told, one object at a time.

*Source:* arXiv 2303.05499; transformers' port. *Differs:* asked for several objects at once it answers with pieces of
the text, which can merge two names; here every name is a text of its own, and its boxes are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image

from learn_to_steer.detectors._hub import encode, load_network, load_tokenizer
from learn_to_steer.detectors._open import OpenDetector, detections
from learn_to_steer.detectors._pictures import IMAGENET_COLORS, keep_ratio, normalise, resize, to_tensor
from learn_to_steer.detectors._protocol import Detector
from learn_to_steer.geometry import Detection

DEFAULT = "IDEA-Research/grounding-dino-tiny"
THRESHOLD = 0.25  # usual in its authors' examples
SHORT, LONG = 800, 1333  # pixels: as large as fits into both for the short and the long side


class GroundingDinoDetector(OpenDetector):
    """``model`` is a GroundingDinoForObjectDetection of transformers, ``tokenizer`` its own, ``weights`` says which."""

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
    """The text that asks for one object: lower case, ended by a full stop."""
    return f"{name.lower().strip(' .')}."


def found(
    logits: torch.Tensor, boxes: torch.Tensor, name: str, size: tuple[int, int], threshold: float = THRESHOLD
) -> list[Detection]:
    """What the network's answer to the text of ``name`` means for a picture of ``size`` (width, height), best first.

    ``logits`` (queries, text tokens), -inf behind the text's end; the best token is the query's score. ``boxes``
    (queries, 4) centre x, centre y, width and height as shares of the picture.
    """
    frame = (float(size[0]), float(size[1]))
    return detections(name, logits.sigmoid().amax(-1), boxes, frame, size, threshold)


def vocabulary() -> None:
    """None: it answers to any word."""
    return


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """The detector with the weights ``source``, a folder or hub id, or with the default ones; or DataError."""
    from transformers import GroundingDinoForObjectDetection

    source = source or DEFAULT
    model, weights = load_network(GroundingDinoForObjectDetection, source, device)
    return GroundingDinoDetector(model, load_tokenizer(source, model.config.text_config.vocab_size), weights)
