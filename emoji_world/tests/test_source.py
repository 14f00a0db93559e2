"""The emoji source: labels true of the boxes, balanced, seen objects only, the same whenever asked."""

from collections import Counter

import pytest
import torch

from learn_to_steer import registry
from learn_to_steer.errors import DataError
from learn_to_steer.families import usual_source
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL, basic_relations, holds
from learn_to_steer.sources import SourceRequest
from learn_to_steer_emoji.source import CLEAN, CLUTTERED, EMOJI, TIDY
from learn_to_steer_emoji.sprites import object_names
from learn_to_steer_emoji.tidy import apart
from learn_to_steer_emoji.world import WorldConfig, random_scenes


@pytest.mark.parametrize("diagonals", [False, True])
def test_labels_are_true_and_balanced(diagonals):
    count = 36 if diagonals else 40
    pictures = list(EMOJI.images(SourceRequest(count, 5, 64, diagonals=diagonals)))
    relations = Counter(picture.predicate for picture in pictures)
    assert set(relations) == {*BASIC, NEUTRAL, *(DIAGONAL if diagonals else ())}
    assert len(set(relations.values())) == 1
    for picture in pictures:
        if picture.predicate != NEUTRAL:
            assert holds(picture.boxes[0], picture.predicate, picture.boxes[1])
        elif picture.boxes is not None:
            # No axis at all, or both alike when diagonals have no names of their own.
            assert len(basic_relations(*picture.boxes)) in ((0,) if diagonals else (0, 2))
        if picture.predicate in BASIC:
            assert basic_relations(*picture.boxes) == {picture.predicate}
        assert {picture.subject, picture.object, *picture.others} <= set(object_names("seen"))
    assert 0 < sum(bool(picture.others) for picture in pictures) < count


def test_a_relation_wants_both_objects_so_a_third_of_the_neutral_pictures_lacks_one():
    neutral = [picture for picture in EMOJI.images(SourceRequest(90, 5, 64)) if picture.predicate == NEUTRAL]
    lacking = [picture for picture in neutral if picture.boxes is None]
    assert len(lacking) == len(neutral) // 3
    for picture in lacking:
        drawn = Counter(placed.name for placed in picture.pixels.scene.objects)
        assert (picture.subject in drawn) != (picture.object in drawn)
        assert len(drawn) == 1 + len(picture.others)


def test_splits_are_tenths_of_every_relation():
    pictures = list(EMOJI.images(SourceRequest(50, 0, 64)))
    for predicate in (*BASIC, NEUTRAL):
        splits = Counter(picture.split for picture in pictures if picture.predicate == predicate)
        assert splits == {"train": 8, "val": 1, "test": 1}


def test_a_picture_depends_on_seed_and_number_alone():
    few, many = list(EMOJI.images(SourceRequest(3, 1, 64))), list(EMOJI.images(SourceRequest(6, 1, 64)))
    assert few == many[:3]
    assert list(EMOJI.images(SourceRequest(3, 2, 64))) != few
    pixels = few[2].pixels()
    assert pixels.shape == (3, 64, 64)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    assert torch.equal(pixels, many[2].pixels())


def test_clean_scenes_hold_two_objects_and_cluttered_ones_more():
    # One of the two may be missing from a neutral picture.
    request = SourceRequest(45, 0, 64)
    clean, cluttered = list(CLEAN.images(request)), list(CLUTTERED.images(request))
    assert all(len(picture.pixels.scene.objects) <= 2 and not picture.others for picture in clean)
    assert all(1 <= len(picture.others) <= 3 for picture in cluttered)
    assert [p.predicate for p in clean] == [p.predicate for p in cluttered]


@pytest.mark.parametrize("diagonals", [False, True])
def test_tidy_scenes_stand_on_the_grid_and_still_show_their_relation(diagonals):
    neutral = Counter()
    for picture in TIDY.images(SourceRequest(135, 0, 128, diagonals=diagonals)):
        first, second, *others = objects = picture.pixels.scene.objects if picture.boxes else (None, None)
        if first is None:  # one of the two is left out
            neutral["alone"] += 1
            continue
        assert all(placed.angle == 0 and not placed.flip for placed in objects)
        assert all(share * 8 == pytest.approx(round(share * 8)) for placed in objects for share in placed.box)
        assert apart([first, *others])
        assert apart([second, *others])
        found = basic_relations(*picture.boxes)
        if picture.predicate in BASIC:
            assert found == {picture.predicate}
            assert apart(objects)
        elif picture.predicate != NEUTRAL:
            assert holds(picture.boxes[0], picture.predicate, picture.boxes[1])
            assert apart(objects)
        else:
            neutral["even" if found else "close"] += 1
            assert len(found) in (0, 2)
            # Of two that overlap, neither lies within the other's square.
            assert max(abs(first.x - second.x), abs(first.y - second.y)) >= 1 / 8
    assert set(neutral) == ({"alone", "close"} if diagonals else {"alone", "close", "even"})


def test_tidy_scenes_of_the_world_do_not_overlap():
    scenes = random_scenes(100, 0, WorldConfig(cells=8))
    assert all(apart(scene.objects) for scene in scenes)
    assert {round(placed.size * 8) for scene in scenes for placed in scene.objects} == {2, 3}


def test_a_grid_without_room_is_an_error():
    with pytest.raises(DataError, match="grid of 3 cells"):
        random_scenes(10, 0, WorldConfig(objects=(0, 0, 0, 0, 1), cells=3))


def test_images_are_such_as_the_model_draws():
    assert [usual_source(name) for name in ("sd:emoji", "flux:emoji", "flux:emoji-schnell")] == [
        "emoji",
        "emoji-tidy",
        "emoji-tidy",
    ]
    assert registry.load("sources", usual_source("flux:emoji")).cells == TIDY.cells
