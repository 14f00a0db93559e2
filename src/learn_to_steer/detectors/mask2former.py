"""Mask2Former with Swin-S on COCO's 80 classes, after-processed as in GenEval.

The rule is GenEval's (arXiv 2310.11513; mmdetection's Mask2Former); the weights are the hub's, of another training
run than GenEval's checkpoint for mmdetection. Scores made with them are not GenEval's own: say "mask2former".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch.nn import functional

from learn_to_steer.detectors._coco import CLASSES, COCO_WORDS
from learn_to_steer.detectors._colors import DEFAULT as COLOR_WEIGHTS
from learn_to_steer.detectors._colors import ColorTeller, isolate, load_colors
from learn_to_steer.detectors._hub import load_network
from learn_to_steer.detectors._pictures import IMAGENET_COLORS, keep_ratio, normalise, resize, to_tensor, upright
from learn_to_steer.detectors._protocol import Asked, Detector
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Detection

DEFAULT = "facebook/mask2former-swin-small-coco-instance"
THRESHOLD = 0.3  # a score must lie above it; where objects are counted the benchmark asks for more
PER_CLASS = 16
PAIRS = 100  # best (query, class) pairs that are looked at
SHORT, LONG = 800, 1333  # pixels: as large as fits into both for the short and the long side
STRIDE = 32  # pixels: the network's input is padded to a multiple of it

Size = tuple[int, int]  # height, width


class Instance(NamedTuple):
    """A detection and its mask, bool (height, width) of the picture."""

    detection: Detection
    mask: torch.Tensor


class Mask2FormerDetector:
    """``model`` answers as transformers' Mask2FormerForUniversalSegmentation does; ``weights`` says which ones it has.

    ``colors`` loads who tells the objects' colours, when they first matter.
    """

    name = "mask2former"
    tells_colors = True
    counting: float | None = None

    def __init__(self, model: Any, weights: str = "", colors: Callable[[], ColorTeller] = load_colors) -> None:
        self.model = model
        self.identity: Mapping[str, Any] = {
            "name": self.name,
            "weights": weights,
            "threshold": THRESHOLD,
            "colors": COLOR_WEIGHTS,
        }
        self._load_colors = colors
        self._colors: ColorTeller | None = None

    @torch.no_grad()
    def detect(self, pictures: Sequence[Image], asked: Sequence[Asked] | None = None) -> list[list[Detection]]:
        """Detections of each picture, best first, by GenEval's names; with colours where they are asked for.

        Raises DataError when colours are asked for and CLIP cannot be loaded.
        """
        with_colors = [one.colors for one in asked] if asked is not None else [False] * len(pictures)
        return [self._find(upright(picture), ask) for picture, ask in zip(pictures, with_colors, strict=True)]

    def _find(self, picture: Image, with_colors: bool) -> list[Detection]:
        size = (picture.height, picture.width)
        inside = keep_ratio(size, SHORT, LONG)
        # Resized as mmdetection does: without antialiasing, to whole numbers. What is padded is 0, the mean colour.
        pixels = resize(to_tensor(picture).to(self.model.device), inside).round()
        right, below = -inside[1] % STRIDE, -inside[0] % STRIDE
        pixels = functional.pad(normalise(pixels, IMAGENET_COLORS), (0, right, 0, below))
        answer = self.model(pixel_values=pixels)
        padded = (pixels.shape[2], pixels.shape[3])
        found = instances(answer.class_queries_logits[0], answer.masks_queries_logits[0], padded, inside, size)
        if not with_colors:
            return [one.detection for one in found]
        if self._colors is None:
            self._colors = self._load_colors()
        crops = [isolate(picture, one.mask, one.detection.box) for one in found]
        colors = self._colors.tell(crops, [one.detection.name for one in found])
        return [replace(one.detection, color=color) for one, color in zip(found, colors, strict=True)]


def instances(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, padded: Size, inside: Size, size: Size
) -> list[Instance]:
    """What the network's answer for one picture means, best first; at most PER_CLASS of a class.

    ``class_logits`` (queries, 80 + 1), the last for "nothing"; ``mask_logits`` (queries, h, w), any scale of the
    network's input. ``padded`` is that input's size in pixels, ``inside`` the upper left part of it that the picture
    fills, ``size`` the picture's own. A score is the class's share times the mask's mean probability; a box is
    the mask's extent in the picture's pixels, its right and lower edges exclusive. One query can give several classes.
    """
    shares = class_logits.softmax(-1)[:, :-1]
    best = shares.flatten().topk(min(PAIRS, shares.numel()))
    sure = best.values > THRESHOLD  # the others cannot pass: a mask's mean probability is at most 1
    pairs = [divmod(pair, shares.shape[1]) for pair in best.indices[sure].tolist()]
    if not pairs:
        return []
    queries = sorted({query for query, _ in pairs})
    masks = resize(mask_logits[queries][None], padded)[..., : inside[0], : inside[1]]
    by_query = dict(zip(queries, resize(masks, size)[0], strict=True))
    found = []
    for share, (query, number) in zip(best.values[sure].tolist(), pairs, strict=True):
        mask = by_query[query] > 0
        if mask.any():
            score = share * float(by_query[query].sigmoid()[mask].mean())
            found.append(Instance(Detection(CLASSES[number], score, _extent(mask)), mask))
    found = sorted((one for one in found if one.detection.score > THRESHOLD), key=lambda one: -one.detection.score)
    return _capped(found)


def vocabulary() -> dict[str, str]:
    """COCO's and GenEval's words -> the class reported, which is GenEval's word ("mouse" -> "computer mouse")."""
    return {name: name for name in CLASSES} | COCO_WORDS


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """The detector with the weights ``source``, a folder or hub id, or with the default ones.

    Raises DataError when they cannot be loaded or their classes are not COCO's 80.
    """
    source = source or DEFAULT
    model, weights = load_network(_network(), source, device)
    labels = model.config.id2label
    # Their names are VOC's in part ("tvmonitor"), so the numbers count; the outermost are enough to know the order.
    if len(labels) != len(CLASSES) or (labels[0], labels[79]) != ("person", "toothbrush"):
        raise DataError(f"the weights {source} have {len(labels)} classes, not COCO's 80 from person to toothbrush")
    return Mask2FormerDetector(model, weights, lambda: load_colors(device))


def _network() -> Any:
    from torch import nn
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerModel, Mask2FormerPreTrainedModel

    class Untrainable(Mask2FormerForUniversalSegmentation):  # type: ignore[misc]
        """Without the loss, which needs SciPy even where nothing is trained."""

        def __init__(self, config: Any) -> None:
            Mask2FormerPreTrainedModel.__init__(self, config)
            self.model = Mask2FormerModel(config)
            self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
            self.post_init()

    return Untrainable


def _extent(mask: torch.Tensor) -> tuple[float, float, float, float]:
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _capped(found: Sequence[Instance]) -> list[Instance]:
    seen: Counter[str] = Counter()
    kept = []
    for one in found:
        seen[one.detection.name] += 1
        if seen[one.detection.name] <= PER_CLASS:
            kept.append(one)
    return kept
