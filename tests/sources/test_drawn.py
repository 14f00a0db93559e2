"""The plan of the pictures that a model draws, and the lists of objects."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from learn_to_steer.collection import benchmark_pairs
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, NEUTRAL
from learn_to_steer.prompts import parse
from learn_to_steer.sources import SourceRequest, drawn
from learn_to_steer_emoji.sprites import object_names


def plans(limit: int = 300, objects: tuple[str, ...] = (), **changes: object) -> list[drawn.PlannedPicture]:
    request = SourceRequest(limit, 0, 64, objects=objects or drawn.common_objects(), **changes)  # type: ignore[arg-type]
    return drawn.planned(request)


@pytest.mark.parametrize("objects", [(), object_names("seen")])
def test_no_pair_of_a_benchmark_is_planned(objects: tuple[str, ...]) -> None:
    held_out = benchmark_pairs()
    planned = plans(objects=objects, exclude=held_out)
    assert len({plan.id for plan in planned}) == 300
    for plan in planned:
        assert len(set(plan.objects)) == len(plan.objects)
        assert not any(frozenset(pair) in held_out for pair in combinations(plan.objects, 2))
    assert planned == plans(objects=objects, exclude=held_out)


def test_words_are_even_and_a_third_is_crowded() -> None:
    planned = plans(1500)
    words = Counter(plan.joins[0] for plan in planned)
    assert set(words) == {*BASIC, NEUTRAL} and min(words.values()) > 240
    sizes = Counter(len(plan.objects) for plan in planned)
    assert set(sizes) == {2, 3, 4, 5} and 0.28 < 1 - sizes[2] / 1500 < 0.39
    splits = Counter(plan.split for plan in planned)
    assert splits == {"train": 1200, "val": 150, "test": 150}
    assert Counter(plan.split for plan in plans(40)) == {"train": 30, "val": 10}


def test_prompts_say_what_is_planned() -> None:
    for plan in plans(60):
        text, spans = plan.prompt()
        assert [text[slice(*span)] for span in spans] == list(plan.objects)
        stated = [tuple(relation.as_list()) for relation in parse(text)]
        for first, second, word in plan.pairs[: len(plan.joins)]:
            if word != NEUTRAL and len(plan.objects) == 2:
                assert (plan.objects[first], word, plan.objects[second]) in stated
        assert len(plan.pairs) == len(plan.joins) + (len(plan.objects) > 2)


def test_common_objects_are_single_things_of_which_most_may_meet() -> None:
    names = drawn.common_objects()
    assert 70 <= len(names) <= 100 and list(names) == sorted(set(names))


def test_files_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "objects.txt"
    path.write_text("﻿Teddy  bear\n# not this\n\ndog\nDOG\n", encoding="utf-8")
    assert drawn.read_objects(path) == ("teddy bear", "dog")
    for content, told in ((b"dog\n", "names 1 objects"), (b"dog\n12\n", "line 2"), (b"\xff\xfe", "not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=told):
            drawn.read_objects(path)
    with pytest.raises(DataError, match="cannot read"):
        drawn.read_objects(tmp_path / "none.txt")


def test_objects_that_may_not_meet() -> None:
    with pytest.raises(DataError, match="name more objects"):
        plans(3, ("dog", "puppy"))
    with pytest.raises(DataError, match="name more objects"):
        plans(3, ("dog", "cat"), exclude=frozenset({frozenset({"dog", "cat"})}))
    assert {plan.objects for plan in plans(40, ("dog", "cat"))} == {("dog", "cat"), ("cat", "dog")}


def test_the_source_has_no_pictures() -> None:
    with pytest.raises(DataError, match="--inversion path"):
        drawn.images(SourceRequest(1, 0, 64))
