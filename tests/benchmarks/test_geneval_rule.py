"""GenEval's scores beyond position: classes, counts, colours, thresholds, and the numbers computed from them."""

from __future__ import annotations

import pytest

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import BenchmarkPrompt, Score, geneval
from learn_to_steer.geometry import Detection

VOCABULARY = {"dog": "dog", "clock": "clock", "cup": "cup"}


def prompt(tag: str, *include: dict, exclude: dict | None = None) -> BenchmarkPrompt:
    line = {"tag": tag, "include": list(include), "prompt": ""} | ({"exclude": [exclude]} if exclude else {})
    return BenchmarkPrompt(0, "", (), line)


def boxes(name: str, *scores: float, color: str | None = None) -> list[Detection]:
    return [Detection(name, score, (20 * n, 0, 20 * n + 10, 10), color) for n, score in enumerate(scores)]


def score_of(target: BenchmarkPrompt, *found: list[Detection]) -> Score:
    return geneval.score(target, [one for some in found for one in some], VOCABULARY)


def three_clocks() -> BenchmarkPrompt:
    return prompt("counting", {"class": "clock", "count": 3}, exclude={"class": "clock", "count": 4})


def test_counting_wants_exactly_so_many_that_are_sure() -> None:
    right = (0.95, 0.99, 0.91)
    assert score_of(three_clocks(), boxes("clock", *right)) == Score(True, True, (), "")
    assert score_of(three_clocks(), boxes("clock", *right, 0.9)).correct  # 0.9 itself is not above it
    assert score_of(three_clocks(), boxes("clock", *right[:2])) == Score(False, False, (), "too few: 2 of 3 clock")
    assert score_of(three_clocks(), boxes("clock", *right, 0.92)) == Score(False, True, (), "too many: 4 clock, not 3")
    assert score_of(three_clocks(), boxes("dog", 0.99)) == Score(False, False, (), "missing: clock")
    assert score_of(three_clocks(), boxes("clock", *right), boxes("dog", 0.99, 0.99)).correct


def test_other_tasks_count_from_above_a_lower_threshold_and_allow_more() -> None:
    two = prompt("two_object", {"class": "dog", "count": 1}, {"class": "cup", "count": 1})
    assert score_of(two, boxes("dog", 0.31, 0.8), boxes("cup", 0.31)).correct
    assert score_of(two, boxes("dog", 0.31), boxes("cup", 0.3)) == Score(False, False, (), "missing: cup")
    assert score_of(two, []).reason == "missing: dog, cup"


def test_the_best_of_a_class_has_the_colour() -> None:
    red = prompt("colors", {"class": "cup", "count": 1, "color": "red"})
    assert score_of(red, boxes("cup", 0.8, color="red"), boxes("cup", 0.7, color="blue")).correct
    wrong = score_of(red, boxes("cup", 0.7, color="red"), boxes("cup", 0.8, color="blue"))
    assert wrong == Score(False, True, (), "wrong colour: cup is blue, not red")
    assert score_of(red, boxes("cup", 0.8)).reason == "wrong colour: cup is unknown, not red"
    both = prompt(
        "color_attr", {"class": "cup", "count": 1, "color": "red"}, {"class": "dog", "count": 1, "color": "blue"}
    )
    assert score_of(both, boxes("cup", 0.8, color="red"), boxes("dog", 0.8, color="blue")).correct
    assert not score_of(both, boxes("cup", 0.8, color="blue"), boxes("dog", 0.8, color="red")).correct


def test_position_has_the_threshold_too() -> None:
    (target,) = [p for p in benchmarks.prompts("geneval-position") if p.index == 353]  # a dog right of a teddy bear
    bear = Detection("teddy bear", 0.9, (0, 0, 10, 10))
    for score, correct in ((0.31, True), (0.3, False)):
        assert geneval.score(target, [bear, Detection("dog", score, (40, 0, 50, 10))]).correct is correct


def row(index: int, tag: str, correct: bool) -> dict:
    return {"index": index, "tag": tag, "correct": correct}


def test_tasks_weigh_the_same_whatever_their_number_of_images() -> None:
    rows = [row(0, "counting", True), row(0, "counting", False), row(1, "counting", False), row(1, "counting", False)]
    rows += [row(2, "colors", True)]
    assert geneval.metrics(rows) == {
        "overall": pytest.approx((1 / 4 + 1) / 2),
        "tasks": {"counting": 1 / 4, "colors": 1.0},
        "correct_images": 2 / 5,
        "correct_prompts": 2 / 3,
    }
    assert benchmarks.metrics("geneval-counting", rows[:4])["overall"] == 1 / 4
