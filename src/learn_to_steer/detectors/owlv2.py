"""OWLv2, an open-vocabulary detector: looks for whatever it is told, also for what is not there.

*Source:* arXiv 2306.09683; transformers' port. *Differs:* what is padded is grey as in the authors' code, not black as
in transformers' newest; a picture is made smaller with a triangle filter, not a Gaussian one. Neither matters to square
pictures of up to 960 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch.nn import functional

from learn_to_steer.detectors._hub import encode, load_network, load_tokenizer
from learn_to_steer.detectors._open import OpenDetector, detections
from learn_to_steer.detectors._pictures import CLIP_COLORS, normalise, resize, to_tensor
from learn_to_steer.detectors._protocol import Detector
from learn_to_steer.geometry import Detection

DEFAULT = "google/owlv2-base-patch16-ensemble"
QUERY = "a photo of a {name}"
THRESHOLD = 0.2  # ours: in use are 0.1 to 0.3
GREY = 127.5  # of the square's empty part


class Owlv2Detector(OpenDetector):
    """``model`` is an Owlv2ForObjectDetection of transformers, ``tokenizer`` its own, ``weights`` says which ones.

    The threshold of 0.2 is our choice and calibrated on nothing.
    """

    name = "owlv2"

    def __init__(self, model: Any, tokenizer: Any, weights: str = "", threshold: float = THRESHOLD) -> None:
        super().__init__(model, tokenizer, weights, threshold)

    def _find(self, picture: Image, names: Sequence[str]) -> list[Detection]:
        queries = [QUERY.format(name=name) for name in names]
        length = self.model.config.text_config.max_position_embeddings
        tokens = encode(self.tokenizer, queries, length, self.model.device, pad_all=True)
        answer = self.model(pixel_values=self._pixels(picture), **tokens)
        return found(answer.logits[0], answer.pred_boxes[0], names, picture.size, self.threshold)

    def _pixels(self, picture: Image) -> torch.Tensor:
        """The picture in the upper left corner of a grey square, resized to what the network takes."""
        square = max(picture.size)
        side = self.model.config.vision_config.image_size
        pixels = to_tensor(picture).to(self.model.device)
        pixels = functional.pad(pixels, (0, square - picture.width, 0, square - picture.height), value=GREY)
        return normalise(resize(pixels, (side, side), antialias=True), CLIP_COLORS)


def found(
    logits: torch.Tensor, boxes: torch.Tensor, names: Sequence[str], size: tuple[int, int], threshold: float = THRESHOLD
) -> list[Detection]:
    """What the network's answer for one picture of ``size`` (width, height) means, best first.

    ``logits`` (patches, names); ``boxes`` (patches, 4) centre x, centre y, width and height as shares of the square
    that the picture was padded to, so they are scaled by its longer side.
    """
    square = float(max(size))
    scores = logits.sigmoid()
    each = [detections(name, scores[:, i], boxes, (square, square), size, threshold) for i, name in enumerate(names)]
    return sorted((one for some in each for one in some), key=lambda one: -one.score)


def vocabulary() -> None:
    """None: it answers to any word."""
    return


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """The detector with the weights ``source``, a folder or hub id, or with the default ones; or DataError."""
    from transformers import Owlv2ForObjectDetection

    source = source or DEFAULT
    model, weights = load_network(Owlv2ForObjectDetection, source, device)
    return Owlv2Detector(model, load_tokenizer(source, model.config.text_config.vocab_size), weights)
