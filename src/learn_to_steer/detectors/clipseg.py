"""CLIPSeg, the detector of the Learn-to-Steer authors' OOD and multi-relation evaluation.

Source: arXiv 2112.10003; sapir1779/learn-to-steer, ``ood_multiple_rels_evaluation/evaluate_images.py``.

It reports at most one box for each name: the extent of the largest region with a high probability. It often reports
objects that are absent, and it can report one region under two names.

Differs: the authors' evaluator gives no score; here the score is the mean probability in the region. The largest region
is the one with the most pixels (see ``largest_region``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from learn_to_steer.detectors._networks import (
    IMAGENET_COLORS,
    encode,
    load_network,
    load_tokenizer,
    normalise,
    resize,
    to_tensor,
)
from learn_to_steer.detectors._open_vocabulary import names_per_image
from learn_to_steer.detectors.base import Detector, Query
from learn_to_steer.geometry import Detection
from learn_to_steer.image_files import to_rgb

DEFAULT = "CIDAS/clipseg-rd64-refined"
TEXT = "a {name}"  # "a" before vowels too, as in the authors' evaluator
LEVEL = 120  # of 255: a pixel shows the object when its probability, rounded down to 255ths, is higher
SIDE = 352  # pixels: images are resized to a square of this side


class ClipSegDetector:
    """CLIPSeg as a detector.

    Args:
        model: A CLIPSegForImageSegmentation of transformers.
        tokenizer: Its tokenizer.
        weights: Which weights it has, for ``identity``.
        side: Side of the square that images are resized to, in pixels.
    """

    name = "clipseg"
    tells_colors = False
    counting: float | None = None

    def __init__(self, model: Any, tokenizer: Any, weights: str = "", side: int = SIDE) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.side = side
        self.identity: Mapping[str, Any] = {"name": self.name, "weights": weights, "level": LEVEL, "side": side}

    @torch.no_grad()
    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """See ``Detector.detect``; at most one detection for each name."""
        names = names_per_image(self.name, images, queries)
        return [self._detect_one(to_rgb(image), each) for image, each in zip(images, names, strict=True)]

    def _detect_one(self, image: Image, names: Sequence[str]) -> list[Detection]:
        pixels = to_tensor(image).to(self.model.device)
        pixels = normalise(resize(pixels, (self.side, self.side), antialias=True).round(), IMAGENET_COLORS)
        texts = [TEXT.format(name=name) for name in names]
        length = self.model.config.text_config.max_position_embeddings
        tokens = encode(self.tokenizer, texts, length, self.model.device)
        logits = self.model(pixel_values=pixels.expand(len(names), -1, -1, -1), **tokens).logits
        maps = logits.reshape(len(names), *logits.shape[-2:]).sigmoid()  # some versions drop a batch dimension of 1
        detections = (detection_in_map(each, name, image.size) for each, name in zip(maps, names, strict=True))
        return sorted((one for one in detections if one is not None), key=lambda one: -one.score)


def detection_in_map(
    probabilities: Float[Tensor, "rows columns"], name: str, size: tuple[int, int]
) -> Detection | None:
    """Turn an object's probability map into a detection.

    Args:
        probabilities: The map, with values in [0, 1].
        name: The object's name.
        size: Width and height of the image in pixels.

    Returns:
        The box of the map's largest region, in whole pixels, rounded down as in the authors' evaluator. Its score is
        the mean probability of the region's pixels that show the object. None if no pixel shows it.
    """
    above = (probabilities * 255).byte() > LEVEL
    region = largest_region(above.cpu().numpy())
    if region is None:
        return None
    rows, columns = (np.nonzero(region.any(axis=axis))[0] for axis in (1, 0))
    xs, ys = (columns[0], columns[-1] + 1), (rows[0], rows[-1] + 1)
    x0, x1 = (float(x * size[0] // region.shape[1]) for x in xs)
    y0, y1 = (float(y * size[1] // region.shape[0]) for y in ys)
    inside = torch.from_numpy(region).to(above.device) & above
    return Detection(name, float(probabilities[inside].mean()), (x0, y0, x1, y1))


def largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Find the largest connected region of a mask; pixels that touch at corners are connected, and holes are filled.

    The authors' evaluator takes OpenCV's largest external contour. OpenCV measures the polygon through the centres of
    the border pixels, which is smaller than the number of pixels by about half the border's length. So the two rules
    can choose different regions when the sizes are nearly equal, or when one region is compact and the other thin.

    Args:
        mask: Boolean (height, width).

    Returns:
        The region as a mask; None when the mask is empty.
    """
    if not mask.any():
        return None
    background = label_regions(np.pad(~mask, 1, constant_values=True), diagonal=False)
    filled = (background != background[0, 0])[1:-1, 1:-1]  # all but the background around the mask
    labels = label_regions(filled, diagonal=True)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def label_regions(mask: NDArray[np.bool_], diagonal: bool) -> NDArray[np.int64]:
    """Number the connected regions of a mask.

    Args:
        mask: Boolean (height, width).
        diagonal: Whether pixels that touch at a corner are connected.

    Returns:
        Integers (height, width): 0 outside the mask, elsewhere the number of the region, from 1.
    """
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    begins, stops = np.nonzero(edges == 1), np.nonzero(edges == -1)
    rows, starts, ends = begins[0].tolist(), begins[1].tolist(), stops[1].tolist()
    root = list(range(len(rows)))

    def find(run: int) -> int:
        while root[run] != run:
            root[run] = root[root[run]]
            run = root[run]
        return run

    # Union-find over horizontal runs, row by row; ``first`` is the first run of the row above that may still touch.
    first, reach = 0, int(diagonal)
    for run, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        while rows[first] < row - 1 or (rows[first] == row - 1 and ends[first] + reach <= start):
            first += 1
        above = first
        while rows[above] == row - 1 and starts[above] < end + reach:
            root[find(above)] = find(run)
            above += 1
    labels = np.zeros(mask.shape, dtype=np.int64)
    numbers = np.unique([find(run) for run in range(len(root))], return_inverse=True)[1] + 1
    labels[mask] = np.repeat(numbers, stops[1] - begins[1])  # a mask's pixels come run by run
    return labels


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
    from transformers import CLIPSegForImageSegmentation

    source = source or DEFAULT
    model, weights = load_network(CLIPSegForImageSegmentation, source, device)
    return ClipSegDetector(model, load_tokenizer(source, model.config.text_config.vocab_size), weights)
