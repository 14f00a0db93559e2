"""The detector ``emoji``: a packaged centre-point network that finds emoji sprites in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.detectors import Query
from learn_to_steer.geometry import Detection
from learn_to_steer.image_files import to_rgb
from learn_to_steer.storage import sha256
from learn_to_steer_emoji.centre_point import STRIDE, DetectorNet, decode, detector_folder, load_net
from learn_to_steer_emoji.self_test import self_test_images as self_test_images
from learn_to_steer_emoji.sprites import canonical_names

BATCH = 64


class EmojiDetector:
    """Finds emoji sprites.

    The network was trained on images 96 to 128 pixels high, with sprites of 23 to 67 pixels. Larger images have to be
    shrunk first.
    """

    name = "emoji"
    tells_colors = False

    def __init__(self, net: DetectorNet, names: tuple[str, ...], threshold: float, weights: str = "") -> None:
        """Wrap a network.

        Args:
            net: The network, in evaluation mode.
            names: Of its classes, in their order.
            threshold: The least score of a detection, in [0, 1].
            weights: A digest of the weights, which becomes part of ``identity``.
        """
        self.net = net
        self.names = names
        self.threshold = threshold
        self.counting: float | None = threshold
        self.identity: Mapping[str, Any] = {"name": self.name, "weights": weights, "threshold": threshold}

    @torch.no_grad()
    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find the sprites.

        Args:
            images: Images of any sizes; those of one size share a batch.
            queries: Have no effect: the detector reports all that it knows.

        Returns:
            The detections of each image, highest score first, boxes in pixels.
        """
        images = [to_rgb(image) for image in images]  # turned upright, which may exchange width and height
        found: list[list[Detection]] = [[] for _ in images]
        sizes: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault((image.height, image.width), []).append(index)
        for size, members in sizes.items():
            for start in range(0, len(members), BATCH):
                batch = members[start : start + BATCH]
                heat, box = self.net(self.pixels([images[index] for index in batch]))
                for index, seen in zip(batch, decode(heat, box, self.names, self.threshold, size), strict=True):
                    found[index] = seen
        return found

    def pixels(self, images: Sequence[Image]) -> Float[Tensor, "batch 3 height width"]:
        """Convert images to the network's input.

        Args:
            images: Images of one size.

        Returns:
            RGB in [0, 1]. Height and width are padded to a multiple of the stride by repeating the lower and the right
            edge.
        """
        pixels = torch.from_numpy(np.stack([np.asarray(to_rgb(image)) for image in images]))
        scaled = pixels.to(next(self.net.parameters()).device).permute(0, 3, 1, 2).float() / 255
        right, below = -scaled.shape[3] % STRIDE, -scaled.shape[2] % STRIDE
        return functional.pad(scaled, (0, right, 0, below), mode="replicate")


def vocabulary() -> dict[str, str]:
    """Return a dict from every word that the detector answers to, aliases included, to the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> EmojiDetector:
    """Load the detector.

    Args:
        device: Where the network runs.
        source: A folder that ``training/train_detector.py`` wrote; None for the packaged weights.

    Returns:
        The detector.

    Raises:
        DataError: The folder holds no weights, or weights of another network.
    """
    folder = detector_folder(source)
    return EmojiDetector(*load_net(folder, device), weights=sha256(folder / "model.safetensors")[:12])
