"""Template matching on rendered scenes whose objects are known."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from learn_to_steer.geometry import iou
from learn_to_steer_emoji import template_filters, template_matching
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Placed, Scene, place, render
from learn_to_steer_emoji.sprites import object_names
from learn_to_steer_emoji.template_detector import load


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
    assert named / present >= 0.95
    assert placed / present >= 0.95
    assert invented <= 0.05 * present


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


def test_soft_and_bent_sprites_are_found_like_those_that_models_draw() -> None:
    scene = Scene(
        (Placed("zebra", 0.28, 0.3, 0.42), Placed("mouse", 0.74, 0.32, 0.38), Placed("chair", 0.5, 0.77, 0.4))
    )
    (pixels,), _ = render([scene])
    small = functional.interpolate(pixels[None], (56, 56), mode="area")
    soft = functional.interpolate(small, (128, 128), mode="bilinear")
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    grid = torch.stack([columns + 0.03 * (5 * rows).sin(), rows + 0.03 * (6 * columns).cos()], -1)
    bent = functional.grid_sample(soft, grid[None], padding_mode="border", align_corners=False)[0]
    assert sorted(d.name for d in template_matching.find(picture_of(bent))) == ["chair", "mouse", "zebra"]


def test_an_object_and_a_piece_of_it_are_one() -> None:
    (pixels,), _ = render([Scene((Placed("toothbrush", 0.5, 0.5, 0.6), Placed("knife", 0.2, 0.2, 0.3)), "gray", 3)])
    assert sorted(d.name for d in template_matching.find(picture_of(pixels))) == ["knife", "toothbrush"]


def test_mirrored_images_hold_the_same_objects_at_mirrored_places() -> None:
    (pixels,), _ = render([Scene((Placed("horse", 0.3, 0.4, 0.4, angle=10), Placed("cup", 0.72, 0.6, 0.36)), "sky", 2)])
    found = {d.name: d.box for d in template_matching.find(picture_of(pixels))}
    mirrored = {d.name: d.box for d in template_matching.find(picture_of(pixels.flip(2)))}
    assert set(found) == set(mirrored) == {"horse", "cup"}
    for name, (x0, y0, x1, y1) in found.items():
        assert iou(mirrored[name], (128 - x1, y0, 128 - x0, y1)) > 0.85


def test_images_smaller_than_a_sprite_hold_nothing() -> None:
    assert template_matching.find(Image.new("RGB", (3, 40))) == []


def test_the_identity_names_the_filters_in_use() -> None:
    identity = load().identity
    assert identity["filters"] == template_filters.digest()
    assert identity["threshold"] == template_matching.THRESHOLD
