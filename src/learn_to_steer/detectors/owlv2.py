"""OWLv2, an open-vocabulary detector: it looks for any name, and may report objects that are absent.

Source: arXiv 2306.09683; transformers' port of it.

Differs: padding is grey as in the authors' code, not black as in transformers' newest version; images are reduced with
a triangle filter, not a Gaussian one. Neither changes square images of up to 960 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.detectors._networks import (
    CLIP_COLORS,
    encode,
    load_network,
    load_tokenizer,
    normalise,
    resize,
    to_tensor,
)
from learn_to_steer.detectors._open_vocabulary import OpenVocabularyDetector, detections
from learn_to_steer.detectors.base import Detector
from learn_to_steer.geometry import Detection

DEFAULT = "google/owlv2-base-patch16-ensemble"
TEXT = "a photo of a {name}"
THRESHOLD = 0.2  # our choice, not calibrated; values in use are 0.1 to 0.3
GREY = 127.5  # of the padding


class Owlv2Detector(OpenVocabularyDetector):
    """OWLv2 as a detector.

    Args:
        model: An Owlv2ForObjectDetection of transformers.
        tokenizer: Its tokenizer.
        weights: Which weights it has, for ``identity``.
        threshold: Score above which a box counts.
    """

    name = "owlv2"

    def __init__(self, model: Any, tokenizer: Any, weights: str = "", threshold: float = THRESHOLD) -> None:
        super().__init__(model, tokenizer, weights, threshold)

    def _detect_one(self, image: Image, names: Sequence[str]) -> list[Detection]:
        texts = [TEXT.format(name=name) for name in names]
        length = self.model.config.text_config.max_position_embeddings
        tokens = encode(self.tokenizer, texts, length, self.model.device, pad_all=True)
        output = self.model(pixel_values=self._pixels(image), **tokens)
        return read_output(output.logits[0], output.pred_boxes[0], names, image.size, self.threshold)

    def _pixels(self, image: Image) -> Tensor:
        """The image in the upper left corner of a grey square, resized to the network's input."""
        square = max(image.size)
        side = self.model.config.vision_config.image_size
        pixels = to_tensor(image).to(self.model.device)
        pixels = functional.pad(pixels, (0, square - image.width, 0, square - image.height), value=GREY)
        return normalise(resize(pixels, (side, side), antialias=True), CLIP_COLORS)


def read_output(
    logits: Float[Tensor, "patches names"],
    boxes: Float[Tensor, "patches 4"],
    names: Sequence[str],
    size: tuple[int, int],
    threshold: float = THRESHOLD,
) -> list[Detection]:
    """Turn the network's output for one image into detections.

    Args:
        logits: One logit for each patch and name.
        boxes: Centre x, centre y, width and height, as fractions of the square that the image was padded to.
        names: The objects' names.
        size: Width and height of the image in pixels.
        threshold: Score that a detection must exceed.

    Returns:
        The detections, highest score first.
    """
    square = float(max(size))
    scores = logits.sigmoid()
    each = [detections(name, scores[:, i], boxes, (square, square), size, threshold) for i, name in enumerate(names)]
    return sorted((one for some in each for one in some), key=lambda one: -one.score)


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
    from transformers import Owlv2ForObjectDetection

    source = source or DEFAULT
    model, weights = load_network(Owlv2ForObjectDetection, source, device)
    return Owlv2Detector(model, load_tokenizer(source, model.config.text_config.vocab_size), weights)
