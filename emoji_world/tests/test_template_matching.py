"""Template matching on rendered scenes whose objects are known."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from learn_to_steer.geometry import iou
from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Placed, Scene, place, render
from learn_to_steer_emoji.sprites import object_names


def picture_of(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy())


def test_presence_on_rendered_scenes() -> None:
    rng = np.random.default_rng(3)
    names = object_names()
    scenes = [
        Scene(place([names[i] for i in rng.choice(len(names), index % 3 + 1, replace=False)], rng), ground, index)
        for index, ground in enumerate(BACKGROUNDS)
    ]
    pixels, boxes = render(scenes)
    present = named = invented = placed = 0
    for scene, around, picture in zip(scenes, boxes, pixels, strict=True):
        found = template_matching.find(picture_of(picture))
        truth = {p.name for p in scene.objects}
        seen = {d.name for d in found}
        present, named, invented = present + len(truth), named + len(truth & seen), invented + len(seen - truth)
        for p, box in zip(scene.objects, around, strict=True):
            placed += any(d.name == p.name and iou(d.box, box) > 0.6 for d in found)
    assert named / present >= 0.9
    assert placed / present >= 0.9
    assert invented <= 0.1 * present


def test_two_of_a_kind_are_two_in_a_wide_picture() -> None:
    scene = Scene((Placed("zebra", 0.3, 0.5, 0.45), Placed("zebra", 1.0, 0.5, 0.4, flip=True)), "grass", 4)
    pixels, _ = render([scene], 96, 128)
    found = template_matching.find(picture_of(pixels[0]))
    assert [d.name for d in found] == ["zebra", "zebra"]
    assert sorted((d.box[0] + d.box[2]) / 2 > 64 for d in found) == [False, True]


def test_bare_backgrounds_hold_nothing() -> None:
    pixels, _ = render([Scene((), name, 5) for name in ("night", "wood", "beach")])
    assert [template_matching.find(picture_of(p)) for p in pixels] == [[], [], []]


def test_half_a_sprite_is_not_a_sprite() -> None:
    bare, whole = Scene((), "sky", 6), Scene((Placed("bus", 0.5, 0.5, 0.5),), "sky", 6)
    (without, with_bus), _ = render([bare, whole])
    assert [d.name for d in template_matching.find(picture_of(with_bus))] == ["bus"]
    halved = with_bus.clone()
    halved[:, :, 64:] = without[:, :, 64:]
    assert "bus" not in {d.name for d in template_matching.find(picture_of(halved))}
