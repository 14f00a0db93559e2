"""An embedder for comparing pictures offline: features of the packaged detector, averaged over the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL.Image import Image

from learn_to_steer_emoji import detector as emoji_detector


def load(device: str = "cpu") -> Callable[[Sequence[Image]], torch.Tensor]:
    """Load the embedder.

    Args:
        device: Where it runs.

    Returns:
        A function from pictures of any sizes to embeddings (n, channels).
    """
    detector = emoji_detector.load(device)

    @torch.no_grad()
    def embed(pictures: Sequence[Image]) -> torch.Tensor:
        features = [detector.net.features(detector.pixels([picture])).mean((2, 3)) for picture in pictures]
        return torch.cat(features)

    return embed
