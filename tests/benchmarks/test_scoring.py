"""GenEval's rule on the worked examples, each pair for itself, names as prompts write them."""

from __future__ import annotations

import pytest

from learn_to_steer.benchmarks import BenchmarkPrompt, Score, detector_class, score_relations
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.geometry import BASIC, Box, Detection
from learn_to_steer.prompts import Relation

VOCABULARY = {"dog": "dog", "cat": "cat", "mouse": "mouse", "computer mouse": "mouse", "knife": "knife", "bus": "bus"}


def prompt(*relations: tuple[str, str, str]) -> BenchmarkPrompt:
    return BenchmarkPrompt(0, "", tuple(Relation(*relation) for relation in relations), {})


def score(relation: str, subject: Box, reference: Box) -> Score:
    found = [Detection("dog", 0.9, subject), Detection("cat", 0.8, reference)]
    return score_relations(prompt(("dog", relation, "cat")), found)


EXAMPLES = [
    ((0, 0, 100, 100), (200, 0, 300, 100), {"left of"}),
    ((0, 0, 100, 100), (100, 100, 200, 200), {"left of", "above"}),
    ((0, 0, 300, 300), (100, 100, 400, 400), set()),
    ((0, 0, 100, 100), (60, 150, 160, 250), {"above"}),
    ((0, 0, 100, 100), (0, 0, 100, 100), set()),
]


@pytest.mark.parametrize(("subject", "reference", "expected"), EXAMPLES)
def test_worked_examples(subject: Box, reference: Box, expected: set[str]) -> None:
    assert {relation for relation in BASIC if score(relation, subject, reference).correct} == expected


def test_reasons() -> None:
    left, right, far = (0, 0, 10, 10), (30, 0, 40, 10), (5, 0, 15, 10)
    assert score("left of", left, right) == Score(True, True, (True,), "")
    assert score("right of", left, right).reason == "wrong side: dog right of cat (is left of)"
    assert (
        score("left of", (0, 0, 300, 300), (100, 100, 400, 400)).reason == "ambiguous: dog left of cat (no clear axis)"
    )
    assert score("left of", left, (0, 0, 10, 10.5)).reason == "fused: dog and cat share a box"
    assert score("above left of", left, (30, 30, 40, 40)).correct
    assert score("above left of", left, right).reason == "wrong side: dog above left of cat (is left of)"
    lonely = score_relations(prompt(("dog", "left of", "cat")), [Detection("cat", 1, far)])
    assert lonely == Score(False, False, (False,), "missing: dog")


def test_the_best_scoring_box_of_a_class_counts() -> None:
    boxes = [Detection("dog", s, (x, 0, x + 10, 10)) for s, x in ((0.5, 60), (0.9, 0), (0.7, 80))]
    assert score_relations(prompt(("dog", "left of", "cat")), [*boxes, Detection("cat", 0.4, (30, 0, 40, 10))]).correct


def test_every_relation_is_tested_on_its_own_pair() -> None:
    # The dog is left of the cat, but the cat is not left of the bus: the lenient rule would let it pass.
    found = [
        Detection(name, 0.9, box)
        for name, box in (("dog", (0, 0, 10, 10)), ("cat", (40, 0, 50, 10)), ("bus", (40, 40, 50, 50)))
    ]
    wanted = prompt(("dog", "left of", "cat"), ("cat", "left of", "bus"))
    assert score_relations(wanted, found) == Score(False, True, (True, False), "wrong side: cat left of bus (is above)")


def test_what_remains_is_scored_when_an_object_is_missing() -> None:
    found = [Detection("dog", 0.9, (0, 0, 10, 10)), Detection("cat", 0.9, (40, 0, 50, 10))]
    outcome = score_relations(prompt(("dog", "left of", "cat"), ("bus", "above", "knife")), found)
    assert outcome == Score(False, False, (True, False), "missing: bus, knife")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("computer mouse", "mouse"),
        ("Dogs", "dog"),
        ("knives", "knife"),
        ("mice", "mouse"),
        ("buses", "bus"),
        ("bus", "bus"),
    ],
)
def test_aliases_and_plurals_are_matched(written: str, expected: str) -> None:
    assert detector_class(written, VOCABULARY) == expected
    found = [Detection(expected, 0.9, (0, 0, 10, 10)), Detection("cat", 0.9, (40, 0, 50, 10))]
    assert score_relations(prompt((written, "left of", "cat")), found, VOCABULARY).correct


def test_plurals_are_matched_without_a_vocabulary() -> None:
    found = [Detection("dog", 0.9, (0, 0, 10, 10)), Detection("cat", 0.9, (40, 0, 50, 10))]
    assert score_relations(prompt(("dogs", "left of", "cats")), found).correct


def test_an_object_the_detector_cannot_see_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match=r"'knive'; did you mean 'knife'"):
        score_relations(prompt(("knive", "left of", "cat")), [], VOCABULARY)
