"""CLIPSeg, the detector of the Learn-to-Steer authors' OOD and multi-relation evaluation.

One box a name: the extent of the largest region where the network sees it. It never says reliably that something is
absent, and one region can serve two names. *Source:* arXiv 2112.10003; the evaluator released with arXiv
2509.02295. *Differs:* it gives no score, here it is the mean probability in the region; regions are compared by their
pixels (see ``_regions``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from learn_to_steer.detectors._hub import encode, load_network, load_tokenizer
from learn_to_steer.detectors._open import names_asked
from learn_to_steer.detectors._pictures import IMAGENET_COLORS, normalise, resize, to_tensor, upright
from learn_to_steer.detectors._protocol import Asked, Detector
from learn_to_steer.detectors._regions import largest_region
from learn_to_steer.geometry import Detection

DEFAULT = "CIDAS/clipseg-rd64-refined"
QUERY = "a {name}"  # "a" before vowels too, as in the authors' evaluator
LEVEL = 120  # of 255: a pixel shows the object when its probability, cut to whole 255ths, lies above it
SIDE = 352  # pixels: pictures are squashed to a square of it


class ClipSegDetector:
    """``model`` is a CLIPSegForImageSegmentation of transformers, ``tokenizer`` its own, ``weights`` says which ones.

    ``side`` is the square's that pictures are resized to.
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
    def detect(self, pictures: Sequence[Image], asked: Sequence[Asked] | None = None) -> list[list[Detection]]:
        """At most one detection of every name asked of a picture, best first. Raises DataError when there are none."""
        names = names_asked(self.name, pictures, asked)
        return [self._find(upright(picture), words) for picture, words in zip(pictures, names, strict=True)]

    def _find(self, picture: Image, names: Sequence[str]) -> list[Detection]:
        pixels = to_tensor(picture).to(self.model.device)
        pixels = normalise(resize(pixels, (self.side, self.side), antialias=True).round(), IMAGENET_COLORS)
        queries = [QUERY.format(name=name) for name in names]
        length = self.model.config.text_config.max_position_embeddings
        tokens = encode(self.tokenizer, queries, length, self.model.device)
        logits = self.model(pixel_values=pixels.expand(len(names), -1, -1, -1), **tokens).logits
        maps = logits.reshape(len(names), *logits.shape[-2:]).sigmoid()  # some versions leave out a batch of 1
        every = (found(one, name, picture.size) for one, name in zip(maps, names, strict=True))
        return sorted((one for one in every if one is not None), key=lambda one: -one.score)


def found(probabilities: torch.Tensor, name: str, size: tuple[int, int]) -> Detection | None:
    """The object ``name`` in its map (h, w) for a picture of ``size`` (width, height); None where it shows nowhere.

    The box is in whole pixels of the picture, rounded down, as the authors' evaluator does; the score is the mean
    probability of the pixels in the region that show the object.
    """
    shown = (probabilities * 255).byte() > LEVEL
    region = largest_region(shown.cpu().numpy())
    if region is None:
        return None
    rows, columns = (np.nonzero(region.any(axis=axis))[0] for axis in (1, 0))
    xs, ys = (columns[0], columns[-1] + 1), (rows[0], rows[-1] + 1)
    x0, x1 = (float(x * size[0] // region.shape[1]) for x in xs)
    y0, y1 = (float(y * size[1] // region.shape[0]) for y in ys)
    inside = torch.from_numpy(region).to(shown.device) & shown
    return Detection(name, float(probabilities[inside].mean()), (x0, y0, x1, y1))


def vocabulary() -> None:
    """None: it answers to any word."""
    return


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """The detector with the weights ``source``, a folder or hub id, or with the default ones; or DataError."""
    from transformers import CLIPSegForImageSegmentation

    source = source or DEFAULT
    model, weights = load_network(CLIPSegForImageSegmentation, source, device)
    return ClipSegDetector(model, load_tokenizer(source, model.config.text_config.vocab_size), weights)
