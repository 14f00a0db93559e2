"""Mask2Former with Swin-S on COCO's 80 classes, post-processed as in GenEval.

Source: GenEval, arXiv 2310.11513, which uses mmdetection's Mask2Former; djghosh13/geneval,
``evaluation/evaluate_images.py``.

Differs: the weights are those of the Hugging Face hub, from another training run than GenEval's checkpoint for
mmdetection. So results are not GenEval's own; report them as those of "mask2former".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.detectors._color_classifier import DEFAULT as COLOR_WEIGHTS
from learn_to_steer.detectors._color_classifier import ColorClassifier, isolate, load_colors
from learn_to_steer.detectors._networks import (
    IMAGENET_COLORS,
    keep_ratio,
    load_network,
    normalise,
    resize,
    to_tensor,
)
from learn_to_steer.detectors.base import Detector, Query
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection
from learn_to_steer.image_files import to_rgb
from learn_to_steer.vocabulary import CLASSES, COCO_NAMES

DEFAULT = "facebook/mask2former-swin-small-coco-instance"
THRESHOLD = 0.3  # a score must be higher; benchmarks that count objects apply a higher threshold of their own
PER_CLASS = 16  # detections of one class that are kept at most
PAIRS = 100  # number of best (query, class) pairs that are considered
SHORT, LONG = 800, 1333  # pixels: upper limits of the sides of the resized image
STRIDE = 32  # pixels: the network's input is padded to a multiple of it

Size = tuple[int, int]  # height, width


class Instance(NamedTuple):
    """A detection and its mask, in pixels of the image."""

    detection: Detection
    mask: Bool[Tensor, "height width"]


class Mask2FormerDetector:
    """Mask2Former as a detector.

    Args:
        model: A Mask2FormerForUniversalSegmentation of transformers.
        weights: Which weights it has, for ``identity``.
        colors: Loads the colour classifier; called at the first query for colours.
    """

    name = "mask2former"
    tells_colors = True
    counting: float | None = None

    def __init__(self, model: Any, weights: str = "", colors: Callable[[], ColorClassifier] = load_colors) -> None:
        self.model = model
        self.identity: Mapping[str, Any] = {
            "name": self.name,
            "weights": weights,
            "threshold": THRESHOLD,
            "colors": COLOR_WEIGHTS,
        }
        self._load_colors = colors
        self._colors: ColorClassifier | None = None

    @torch.no_grad()
    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """See ``Detector.detect``; raises DataError when colours are needed and CLIP cannot be loaded."""
        colors = [query.colors for query in queries] if queries is not None else [False] * len(images)
        return [self._detect_one(to_rgb(image), with_colors) for image, with_colors in zip(images, colors, strict=True)]

    def _detect_one(self, image: Image, with_colors: bool) -> list[Detection]:
        size = (image.height, image.width)
        inside = keep_ratio(size, SHORT, LONG)
        # As in mmdetection: no antialiasing, rounding to whole numbers, and padding with 0, which is the mean colour.
        pixels = resize(to_tensor(image).to(self.model.device), inside).round()
        right, below = -inside[1] % STRIDE, -inside[0] % STRIDE
        pixels = functional.pad(normalise(pixels, IMAGENET_COLORS), (0, right, 0, below))
        output = self.model(pixel_values=pixels)
        padded = (pixels.shape[2], pixels.shape[3])
        detected = instances(output.class_queries_logits[0], output.masks_queries_logits[0], padded, inside, size)
        if not with_colors:
            return [one.detection for one in detected]
        if self._colors is None:
            self._colors = self._load_colors()
        crops = [isolate(image, one.mask, one.detection.box) for one in detected]
        colors = self._colors.classify(crops, [one.detection.name for one in detected])
        return [replace(one.detection, color=color) for one, color in zip(detected, colors, strict=True)]


def instances(
    class_logits: Float[Tensor, "queries classes"],
    mask_logits: Float[Tensor, "queries rows columns"],
    padded: Size,
    inside: Size,
    size: Size,
) -> list[Instance]:
    """Turn the network's output for one image into instances.

    A score is the probability of the class times the mean probability of the mask. A box is the extent of the mask,
    with its right and lower edges exclusive. One query can give several classes.

    Args:
        class_logits: One logit for each query and class; the last class is "nothing".
        mask_logits: One map for each query, at any scale of the network's input.
        padded: Height and width of the network's input in pixels.
        inside: Height and width in pixels of the upper left part of the input that the image fills.
        size: Height and width of the image itself in pixels.

    Returns:
        The instances, highest score first, at most PER_CLASS of each class.
    """
    probabilities = class_logits.softmax(-1)[:, :-1]
    best = probabilities.flatten().topk(min(PAIRS, probabilities.numel()))
    above = best.values > THRESHOLD  # no others can pass, since a mask's mean probability is at most 1
    pairs = [divmod(pair, probabilities.shape[1]) for pair in best.indices[above].tolist()]
    if not pairs:
        return []
    queries = sorted({query for query, _ in pairs})
    masks = resize(mask_logits[queries][None], padded)[..., : inside[0], : inside[1]]
    by_query = dict(zip(queries, resize(masks, size)[0], strict=True))
    detected = []
    for probability, (query, number) in zip(best.values[above].tolist(), pairs, strict=True):
        mask = by_query[query] > 0
        if mask.any():
            score = probability * float(by_query[query].sigmoid()[mask].mean())
            detected.append(Instance(Detection(CLASSES[number], score, _extent(mask)), mask))
    kept = sorted((one for one in detected if one.detection.score > THRESHOLD), key=lambda one: -one.detection.score)
    return _capped(kept)


def vocabulary() -> dict[str, str]:
    """COCO's and GenEval's names -> the class reported, which is GenEval's name ("mouse" -> "computer mouse")."""
    return {name: name for name in CLASSES} | COCO_NAMES


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """Load the detector.

    Args:
        device: The torch device.
        source: A folder or hub id of weights; None for the default ones.

    Returns:
        The detector.

    Raises:
        DataError: The weights cannot be loaded, or their classes are not COCO's 80.
    """
    source = source or DEFAULT
    model, weights = load_network(_network(), source, device)
    labels = model.config.id2label
    # Some checkpoints have VOC's names ("tvmonitor"): only the number of classes, the first and last one are checked.
    if len(labels) != len(CLASSES) or (labels[0], labels[79]) != ("person", "toothbrush"):
        raise DataError(
            f"the weights {source} have {len(labels)} classes, not COCO's 80 from person to toothbrush; name "
            "weights that were trained on COCO's instances"
        )
    return Mask2FormerDetector(model, weights, lambda: load_colors(device))


def _network() -> Any:
    from torch import nn
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerModel, Mask2FormerPreTrainedModel

    class InferenceOnly(Mask2FormerForUniversalSegmentation):  # type: ignore[misc]
        """Leaves out the loss, whose constructor needs SciPy."""

        def __init__(self, config: Any) -> None:
            Mask2FormerPreTrainedModel.__init__(self, config)
            self.model = Mask2FormerModel(config)
            self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
            self.post_init()

    return InferenceOnly


def _extent(mask: Bool[Tensor, "height width"]) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1) of a mask, its right and lower edges exclusive."""
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _capped(detected: Sequence[Instance]) -> list[Instance]:
    """The first PER_CLASS instances of every class."""
    counts: Counter[str] = Counter()
    kept = []
    for one in detected:
        counts[one.detection.name] += 1
        if counts[one.detection.name] <= PER_CLASS:
            kept.append(one)
    return kept
