"""The emoji detector on pictures: sizes, batches, and how much the packaged weights find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from learn_to_steer.geometry import iou
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.centre_point import DetectorNet
from learn_to_steer_emoji.detector import EmojiDetector, load
from learn_to_steer_emoji.scenes import Scene, place, render, to_pil
from learn_to_steer_emoji.sprites import object_names


@pytest.fixture
def untrained() -> EmojiDetector:
    torch.manual_seed(0)
    net = DetectorNet(3, (16, 16, 16, 16)).eval()
    torch.nn.init.zeros_(net.heat.bias)
    return EmojiDetector(net, ("dog", "cat", "bus"), 0.3)


def test_pictures_of_all_sizes_and_modes_keep_their_order(untrained: EmojiDetector) -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (96, 128), (61, 75), (64, 64)]
    mixed = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    mixed.append(mixed[1].convert("RGBA"))
    together = untrained.detect(mixed)
    alone = [untrained.detect([picture])[0] for picture in mixed]
    for found, expected in zip(together, alone, strict=True):
        assert [d.name for d in found] == [d.name for d in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.box == pytest.approx(other.box, abs=1e-2)
    assert together[4] == together[1]
    for picture, found in zip(mixed, together, strict=True):
        assert found
        assert all(d.box[0] >= 0 and d.box[2] <= picture.width and d.box[3] <= picture.height for d in found)


def test_no_pictures_give_no_detections(untrained: EmojiDetector) -> None:
    assert untrained.detect([]) == []


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 128)])
def test_packaged_weights_find_held_out_objects(height: int, width: int) -> None:
    rng = np.random.default_rng(97)
    names = object_names()
    scenes = []
    for index in range(40):
        chosen = [names[i] for i in rng.choice(len(names), index % 4 + 1, replace=False)]
        ground = list(BACKGROUNDS)[index % len(BACKGROUNDS)]
        scenes.append(Scene(place(chosen, rng, aspect=width / height), ground, index))
    pixels, boxes = render(scenes, height, width)
    found = load().detect(to_pil(pixels))
    objects = hits = extra = 0
    for scene, around, seen in zip(scenes, boxes, found, strict=True):
        right = [
            any(d.name == p.name and iou(d.box, b) > 0.5 for d in seen)
            for p, b in zip(scene.objects, around, strict=True)
        ]
        objects, hits, extra = objects + len(right), hits + sum(right), extra + len(seen) - sum(right)
    assert hits / objects >= 0.97
    assert extra / objects <= 0.03
