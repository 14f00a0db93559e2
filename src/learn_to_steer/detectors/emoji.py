"""Detector of the emoji world's sprites: the packaged centre-point network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch.nn import functional

from learn_to_steer.detectors._protocol import Asked, Detector
from learn_to_steer.emoji.detector_net import STRIDE, DetectorNet, decode, detector_folder, load_net
from learn_to_steer.emoji.known import known as known
from learn_to_steer.emoji.sprites import canonical_names
from learn_to_steer.geometry import Detection
from learn_to_steer.storage import sha256

BATCH = 64


class EmojiDetector:
    """Finds emoji sprites in pictures of any size.

    It was trained on pictures 96 to 128 pixels high, sprites 23 to 67 pixels; larger pictures should be
    shrunk by the caller first.
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
    def detect(self, pictures: Sequence[Image], asked: Sequence[Asked] | None = None) -> list[list[Detection]]:
        """Detections of each picture, best first; pictures of one size share a batch."""
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
        """RGB in [0, 1] (n, 3, H, W), the right and lower edge repeated up to a multiple of the stride."""
        pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
        scaled = pixels.to(next(self.net.parameters()).device).permute(0, 3, 1, 2).float() / 255
        right, below = -scaled.shape[3] % STRIDE, -scaled.shape[2] % STRIDE
        return functional.pad(scaled, (0, right, 0, below), mode="replicate")


def vocabulary() -> dict[str, str]:
    """Every word the detector answers to, aliases included -> the class it reports."""
    return canonical_names()


def load(device: str = "cpu", source: str | None = None) -> Detector:
    """The packaged detector on ``device``, or the one in the folder ``source``. Raises DataError without weights."""
    folder = detector_folder(source)
    return EmojiDetector(*load_net(folder, device), weights=sha256(folder / "model.safetensors")[:12])
