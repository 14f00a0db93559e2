"""The detector ``emoji``: the packaged centre-point network, which finds sprites in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch.nn import functional

from learn_to_steer.detectors import Query
from learn_to_steer.geometry import Detection
from learn_to_steer.storage import sha256
from learn_to_steer_emoji.centre_point import STRIDE, DetectorNet, decode, detector_folder, load_net
from learn_to_steer_emoji.self_test import self_test_images as self_test_images
from learn_to_steer_emoji.sprites import canonical_names

BATCH = 64


class EmojiDetector:
    """Finds emoji sprites in pictures of any size.

    It was trained on pictures 96 to 128 pixels high with sprites of 23 to 67 pixels. Shrink larger pictures first.
    """

    name = "emoji"
    tells_colors = False

    def __init__(self, net: DetectorNet, names: tuple[str, ...], threshold: float, weights: str = "") -> None:
        self.net = net
        self.names = names
        self.threshold = threshold
        self.counting: float | None = threshold
        self.identity: Mapping[str, Any] = {"name": self.name, "weights": weights, "threshold": threshold}

    @torch.no_grad()
    def detect(self, pictures: Sequence[Image], asked: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find the sprites.

        Args:
            pictures: Pictures of any sizes; those of one size share a batch.
            asked: Not needed: the detector reports all it knows.

        Returns:
            Detections of each picture, best first, boxes in its pixels.
        """
        found: list[list[Detection]] = [[] for _ in pictures]
        sizes: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            sizes.setdefault((picture.height, picture.width), []).append(index)
        for size, members in sizes.items():
            for start in range(0, len(members), BATCH):
                batch = members[start : start + BATCH]
                heat, box = self.net(self.pixels([pictures[index] for index in batch]))
                for index, seen in zip(batch, decode(heat, box, self.names, self.threshold, size), strict=True):
                    found[index] = seen
        return found

    def pixels(self, pictures: Sequence[Image]) -> torch.Tensor:
        """Pictures of one size as the network takes them.

        Args:
            pictures: Pictures of one size.

        Returns:
            RGB in [0, 1] (n, 3, H, W), the right and lower edge repeated up to a multiple of the stride.
        """
        pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
        scaled = pixels.to(next(self.net.parameters()).device).permute(0, 3, 1, 2).float() / 255
        right, below = -scaled.shape[3] % STRIDE, -scaled.shape[2] % STRIDE
        return functional.pad(scaled, (0, right, 0, below), mode="replicate")


def vocabulary() -> dict[str, str]:
    """Every word the detector understands, aliases included -> the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> EmojiDetector:
    """Load the network.

    Args:
        device: Where it runs.
        source: A folder that ``train_detector.py`` wrote; None is the packaged one.

    Returns:
        The detector with its weights.

    Raises:
        DataError: The folder holds no weights, or those of something else.
    """
    folder = detector_folder(source)
    return EmojiDetector(*load_net(folder, device), weights=sha256(folder / "model.safetensors")[:12])
