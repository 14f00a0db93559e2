"""VISOR's prompt file, its lenient rule, and its numbers on images that can be counted by hand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import BenchmarkPrompt, visor
from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import Relation

PINNED = "ec4106c19fcd5071241f0be3efb62697700354a0771de92c5d4ce16f01786487"


def test_the_file_has_its_published_size_and_order() -> None:
    entries = visor.entries()
    kinds = Counter("relation" if entry["rel_type"] in visor.PHRASES else entry["rel_type"] for entry in entries)
    assert kinds == {"relation": 25280, "and": 6320, "": 80}
    assert [entry["unique_id"] for entry in entries] == list(range(31680))
    assert [entry["text"] for entry in entries[:3]] == [
        "a person to the left of a bicycle",
        "a bicycle to the left of a person",
        "a person to the right of a bicycle",
    ]
    assert [entry["text"] for entry in entries[8:11]] == [
        "a person and a bicycle",
        "a bicycle and a person",
        "a person to the left of a car",
    ]
    assert entries[-1]["text"] == "a toothbrush"
    assert len({entry["text"] for entry in entries}) == 31680
    assert {"mouse", "remote", "keyboard"} < {entry["obj_1_attributes"][0] for entry in entries}
    written = "".join(json.dumps(entry) + "\n" for entry in entries)
    assert hashlib.sha256(written.encode()).hexdigest() == PINNED


def test_the_subset_is_a_fair_part_of_all() -> None:
    some = benchmarks.prompts("visor-1000")
    texts = {entry["unique_id"]: entry["text"] for entry in visor.entries()}
    assert all(texts[p.index] == p.prompt for p in some)
    assert set(Counter(p.relations[0].predicate for p in some).values()) == {250}
    assert [p.index for p in some] == sorted(p.index for p in some)
    swapped = sum(p.index % 2 for p in some)
    assert 450 < swapped < 550


def prompt_with(predicate: str) -> BenchmarkPrompt:
    return BenchmarkPrompt(0, "", (Relation("dog", predicate, "cat"),), {})


def boxes(name: str, *corners: tuple[int, int]) -> list[Detection]:
    return [Detection(name, 0.5, (x, y, x + 10, y + 10)) for x, y in corners]


def test_any_pair_of_boxes_will_do_and_no_margin_is_needed() -> None:
    near = boxes("dog", (0, 0)) + boxes("cat", (1, 30))
    assert visor.score(prompt_with("left of"), near).correct
    assert not benchmarks.score_relations(prompt_with("left of"), near).correct
    assert not visor.score(prompt_with("right of"), near).correct
    both = boxes("dog", (0, 0), (50, 0)) + boxes("cat", (20, 0))
    assert visor.score(prompt_with("left of"), both).correct
    assert visor.score(prompt_with("right of"), both).correct
    level = visor.score(prompt_with("above"), both)
    assert (level.correct, level.present, level.held) == (False, True, (False,))
    assert level.reason == "wrong side: dog above cat in no pair"
    assert visor.score(prompt_with("above"), boxes("dog", (0, 0))).reason == "missing: cat"


def rows(index: int, *images: tuple[bool, bool]) -> list[dict]:
    return [{"index": index, "present": present, "correct": correct} for present, correct in images]


RIGHT, WRONG, ABSENT = (True, True), (True, False), (False, False)


def test_metrics() -> None:
    numbers = visor.metrics([*rows(0, RIGHT, RIGHT, WRONG, ABSENT), *rows(1, WRONG, RIGHT, ABSENT, ABSENT)])
    assert numbers == {
        "object_accuracy": 5 / 8,
        "unconditional": 3 / 8,
        "conditional": pytest.approx(3 / 5),
        "conditional_by_order": {"coco": pytest.approx(2 / 3), "swapped": 1 / 2},
        "visor_1": 1.0,
        "visor_2": 0.5,
        "visor_3": 0.0,
        "visor_4": 0.0,
    }
    assert numbers["conditional"] == pytest.approx(numbers["unconditional"] / numbers["object_accuracy"])


def test_numbers_of_too_few_images_are_left_open() -> None:
    numbers = visor.metrics(rows(0, ABSENT, ABSENT))
    assert numbers["conditional"] is None
    assert numbers["conditional_by_order"] == {"coco": None, "swapped": None}
    assert numbers["visor_1"] is None
