"""The embedder ``emoji``, to compare images offline: features of the packaged detector, averaged over the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from learn_to_steer_emoji import detector as emoji_detector


def load(device: str = "cpu") -> Callable[[Sequence[Image]], Float[Tensor, "images channels"]]:
    """Load the embedder.

    Args:
        device: Where it runs.

    Returns:
        A function from images of any sizes to embeddings (images, channels).
    """
    detector = emoji_detector.load(device)

    @torch.no_grad()
    def embed(images: Sequence[Image]) -> Tensor:
        features = [detector.net.features(detector.pixels([image])).mean((2, 3)) for image in images]
        return torch.cat(features)

    return embed
