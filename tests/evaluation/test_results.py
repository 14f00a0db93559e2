"""The numbers of a summary and of a comparison, on scores that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.detectors.base import Detector
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.evaluation import Scorer, compare_rows, summarise
from learn_to_steer.evaluation.results import prompts_digest
from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import Relation, parse

# Only the vocabulary matters here: the detections are given.
SCORER = Scorer(cast(Detector, None), {"dog": "dog", "cat": "cat", "cow": "cow"})
LEFT, RIGHT, NEARLY, LOW = (0, 20, 20, 40), (40, 20, 60, 40), (3, 20, 23, 40), (0, 60, 20, 80)


def row(index: int, text: str, **boxes: tuple[int, ...]) -> dict:
    prompt = BenchmarkPrompt(index, text, parse(text), {})
    score = SCORER.score(prompt, [Detection(name, 0.9, box) for name, box in boxes.items()])
    facts = {"index": index, "relations": [r.as_list() for r in prompt.relations], "converged": index == 0}
    return facts | score | {"passes": 4 * index, "checks": 1, "seconds": 0.5}


@pytest.fixture
def rows() -> list[dict]:
    return [
        row(0, "a dog to the left of a cat", dog=LEFT, cat=RIGHT),
        row(0, "a dog to the left of a cat", dog=LEFT, cat=NEARLY),  # the right side, but by too little
        row(1, "a dog above a cat", dog=LOW, cat=LEFT),
        row(1, "a dog above a cat", dog=LEFT),
        row(2, "a dog to the left of a cat below a cow", dog=LEFT, cat=RIGHT, cow=LOW),
    ]


def test_summary(rows):
    summary = summarise(rows)
    assert summary["accuracy"] == 1 / 5
    assert summary["both_present"] == 4 / 5
    assert summary["accuracy_where_present"] == 1 / 4
    assert summary["on_axis_where_present"] == 2 / 4
    assert (summary["images"], summary["prompts"]) == (5, 3)
    assert summary["passes_per_image"] == (0 + 0 + 4 + 4 + 8) / 5
    assert summary["seconds_per_image"] == 0.5
    assert summary["converged"] == 2 / 5
    assert summary["failures"] == {"wrong side": 2, "ambiguous": 1, "missing": 1}
    assert summary["per_relation"]["left of"] == {
        "relations": 3,
        "accuracy": 2 / 3,
        "both_present": 1.0,
        "accuracy_where_present": 2 / 3,
        "on_axis_where_present": 1.0,
    }
    assert summary["per_relation"]["above"]["both_present"] == 0.5
    assert summary["per_relation"]["below"]["accuracy"] == 0.0
    low, high = summary["accuracy_interval"]
    assert low == 0.0 <= summary["accuracy"] <= high


def test_exactly_one_is_about_the_objects_of_relations_only():
    text = "a dog to the left of a cat"
    prompt = BenchmarkPrompt(0, text, parse(text), {})
    facts = {"index": 0, "sample": 0, "prompt": text, "relations": [r.as_list() for r in prompt.relations]}

    def drawn(*names: str) -> dict:
        boxes = [Detection(name, 0.9, LEFT if name == "dog" else RIGHT) for name in names]
        return facts | SCORER.score(prompt, boxes)

    rows = [drawn("dog", "cat"), drawn("dog", "cat", "cow"), drawn("dog", "dog", "cat"), drawn("cat")]
    assert [one["once"] for one in rows] == [True, True, False, False]
    assert drawn("dog", "dog", "cat", "cat")["once"] is False
    unplaced = facts | {"relations": [], "held": [], "on_axis": [], "once": None}
    assert summarise([*rows, rows[0] | unplaced])["each_once"] == 0.5
    assert summarise([rows[0] | unplaced])["each_once"] is None
    assert compare_rows(rows[:1], rows[2:3])["once"] == [1.0, 1.0, 1.0]
    assert "once" not in compare_rows(rows[:1], [rows[2] | {"once": None}])


def test_shares_of_nothing_are_none():
    summary = summarise([row(0, "a dog above a cat", dog=LEFT)])
    assert summary["accuracy_where_present"] is None
    assert summary["per_relation"]["above"]["on_axis_where_present"] is None
    with pytest.raises(ValueError, match="at least one image"):
        summarise([])


@pytest.mark.parametrize(
    ("predicate", "right"),
    [
        ("above and to the left of", True),
        ("above and to the right of", False),
        ("below and to the left of", False),
    ],
)
def test_diagonals_ask_for_both_axes(predicate, right):
    assert row(0, f"a dog {predicate} a cat", dog=(0, 0, 20, 20), cat=(30, 30, 50, 50))["on_axis"] == [right]


def test_the_best_box_of_a_class_counts_and_unknown_objects_are_refused():
    prompt = BenchmarkPrompt(0, "a dog above a cat", parse("a dog above a cat"), {})
    found = [Detection("dog", 0.9, LEFT), Detection("dog", 0.4, LOW), Detection("cat", 0.9, (0, 60, 20, 80))]
    assert SCORER.score(prompt, found)["correct"]
    with pytest.raises(UnknownNameError, match="cat"):
        replace(SCORER, vocabulary={"dog": "dog"}).score(prompt, [])


def test_an_image_may_fail_in_two_ways_and_kinds_keep_their_order():
    one = row(0, "a dog to the left of a cat below a cow", dog=RIGHT, cat=LEFT)
    assert one["reason"].startswith("missing: cow; wrong side: ")
    assert list(summarise([one])["failures"].items()) == [("missing", 1), ("wrong side", 1)]


def test_runs_are_compared_on_the_images_that_both_have(rows):
    ours = [one | {"sample": n, "prompt": str(one["index"])} for n, one in enumerate(rows)]
    found = compare_rows(ours, [one | {"correct": True} for one in ours[1:3]])
    assert found["images"] == 2
    assert found["correct"] == [-1.0, -1.0, -1.0]  # neither of the two is correct here
    assert found["present"] == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="no image in common"):
        compare_rows(ours[:1], ours[1:])
    with pytest.raises(ValueError, match="number 1 is '1' here and 'other' there"):
        compare_rows(ours, [ours[2] | {"prompt": "other"}])


def test_the_digest_of_prompts_depends_on_texts_numbers_and_relations() -> None:
    base = BenchmarkPrompt(0, "a dog left of a cat", (Relation("dog", "left of", "cat"),), {"tag": "position"})
    others = [
        replace(base, index=1),
        replace(base, prompt="a dog to the left of a cat"),
        replace(base, relations=(Relation("dog", "right of", "cat"),)),
    ]
    assert len({prompts_digest([prompt]) for prompt in (base, *others)}) == 4
    assert prompts_digest([replace(base, metadata={})]) == prompts_digest([base])


def test_the_interval_resamples_prompts_not_images() -> None:
    correct = row(0, "a dog left of a cat", dog=LEFT, cat=RIGHT)
    wrong = row(1, "a cat left of a dog", dog=LEFT, cat=RIGHT)
    summary = summarise([correct] * 4 + [wrong] * 4)
    assert (summary["accuracy"], summary["accuracy_interval"]) == (0.5, [0.0, 1.0])
