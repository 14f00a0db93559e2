"""How far a picture stays what the base made of the same prompt and noise: as a whole, and outside its objects.

*Source:* paper, Table 5 (cosine similarity of DINO and CLIP embeddings) and Fig. 10 (backgrounds that steering dulls).
Published numbers hold for one checkpoint of an embedder; it is always named with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from learn_to_steer import registry
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box

Embed = Callable[[Sequence[Image]], Tensor]
GROWN = 0.1  # share of a box's side that is added on every side: a detector's boxes are tight


def embedder(name: str, device: str = "cpu") -> Embed:
    """Pictures to embeddings (n, channels) by a plug-in's name, or by a DINO or CLIP model, a folder or hub id.

    A plug-in offers ``load(device)``, which gives such a function. CLIP answers with its image embedding, others with
    the class token of the last layer. Raises DataError for a model that cannot be loaded.
    """
    if name in registry.names("embedders"):
        plugin: Embed = registry.load("embedders", name).load(device)
        return plugin
    try:
        from transformers import AutoImageProcessor, AutoModel

        processor: Any = AutoImageProcessor.from_pretrained(name)
        network: Any = AutoModel.from_pretrained(name).to(device).eval()
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the embedder {name} could not be loaded: {reason}") from error

    @torch.no_grad()
    def embed(pictures: Sequence[Image]) -> Tensor:
        inputs = processor(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt").to(device)
        if not hasattr(network, "get_image_features"):
            tokens: Tensor = network(**inputs).last_hidden_state[:, 0]
            return tokens.float()
        found = network.get_image_features(**inputs)
        image: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        return image.float()

    return embed


def background(
    ours: Image, theirs: Image, our_boxes: Sequence[Box], their_boxes: Sequence[Box]
) -> tuple[float, float, float] | None:
    """What happened outside all boxes of two pictures of one size; None when nothing is outside.

    The mean absolute difference there (0 to 1), and the standard deviation of either: a dulled background has less
    than the base's. Raises DataError for pictures of two sizes.
    """
    if ours.size != theirs.size:
        raise DataError(f"pictures of one size are compared, not {ours.size} and {theirs.size}")
    outside = np.ones((ours.height, ours.width), dtype=bool)
    for left, top, right, bottom in (*our_boxes, *their_boxes):
        wide, high = GROWN * (right - left), GROWN * (bottom - top)
        rows = slice(max(int(top - high), 0), max(int(np.ceil(bottom + high)), 0))
        outside[rows, max(int(left - wide), 0) : max(int(np.ceil(right + wide)), 0)] = False
    if not outside.any():
        return None
    mine, base = _pixels(ours)[outside], _pixels(theirs)[outside]
    return float(np.abs(mine - base).mean()), float(mine.std(0).mean()), float(base.std(0).mean())


def _pixels(picture: Image) -> NDArray[np.float64]:
    """RGB in [0, 1], (height, width, 3)."""
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255
