"""Two objects of one name are two boxes; two names that a detector cannot tell apart are refused."""

from __future__ import annotations

import pytest

from learn_to_steer.benchmarks import BenchmarkPrompt, score_relations
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.evaluation import Scorer
from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import parse

LEFT, MIDDLE, RIGHT = (0, 40, 20, 60), (40, 40, 60, 60), (80, 40, 100, 60)
ABOVE = (40, 0, 60, 20)


def prompt(text: str) -> BenchmarkPrompt:
    return BenchmarkPrompt(0, text, parse(text), {})


def dogs(*boxes: tuple[int, int, int, int]) -> list[Detection]:
    return [Detection("dog", 0.9 - n / 10, box) for n, box in enumerate(boxes)]


@pytest.mark.parametrize("boxes", [(LEFT, RIGHT), (RIGHT, LEFT)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_best_two_distinct_boxes_are_the_two_objects(boxes: tuple[tuple[int, ...], ...], side: str) -> None:
    asked = prompt(f"a dog to the {side} of another dog")
    assert score_relations(asked, dogs(*boxes)).correct  # type: ignore[arg-type]
    doubled = score_relations(asked, dogs(LEFT, (0, 40, 20, 59), MIDDLE))
    assert doubled.correct, "one dog that was detected twice is one dog"


def test_what_two_objects_of_one_name_lack() -> None:
    asked = prompt("a dog to the left of another dog")
    assert score_relations(asked, dogs(LEFT)).reason == "missing: a second dog"
    assert score_relations(asked, dogs(LEFT, (0, 40, 20, 59))).reason == "missing: a second dog"
    assert score_relations(asked, []).reason == "missing: dog"
    wrong = score_relations(asked, dogs(MIDDLE, ABOVE))
    assert not wrong.correct and wrong.present and wrong.reason.startswith("wrong side")


def test_a_later_relation_is_about_the_same_one_of_the_two() -> None:
    asked = prompt("a dog to the left of another dog above a cat")
    cat = Detection("cat", 0.9, (80, 90, 100, 110))
    assert [r.as_list() for r in asked.relations] == [["dog", "left of", "dog"], ["dog", "above", "cat"]]
    assert score_relations(asked, [*dogs(LEFT, RIGHT), cat]).held == (True, True)
    assert score_relations(asked, [*dogs(RIGHT, LEFT), cat]).held == (True, True)
    below_the_other = Detection("cat", 0.9, (0, 90, 20, 110))
    assert not score_relations(asked, [*dogs(LEFT, RIGHT), below_the_other]).correct


class _Detector:
    name, identity = "stub", {}


def test_each_once_is_twice_for_two_objects_of_one_name() -> None:
    scorer = Scorer(_Detector(), {"dog": "dog"})  # type: ignore[arg-type]
    asked = prompt("a dog to the left of another dog")
    fields = scorer.score(asked, dogs(LEFT, RIGHT))
    assert (fields["once"], fields["on_axis"]) == (True, [True])
    assert scorer.score(asked, dogs(LEFT, RIGHT, ABOVE))["once"] is False


@pytest.mark.parametrize("known", [{"dog": "dog", "cat": "cat"}, {"dog": "dog"}])
def test_more_relations_of_two_objects_of_one_name(known: dict[str, str]) -> None:
    scorer = Scorer(_Detector(), known)  # type: ignore[arg-type]
    asked = prompt("a dog to the left of another dog above a cat")
    found = [*dogs(LEFT, RIGHT), Detection("cat", 0.9, (80, 90, 100, 110))]
    seen = scorer.seen(asked, found)
    if "cat" in known:
        assert scorer.score(asked, found)["once"] is True
        assert seen == {"objects": {"cat": True, "dog": True}, "relations": [True, True]}
    else:
        assert seen == {"objects": {"cat": None, "dog": True}, "relations": [True, None]}


def test_names_of_one_class_are_refused() -> None:
    coco = {"person": "person", "couch": "couch"}
    people = [Detection("person", 0.9, LEFT), Detection("person", 0.8, RIGHT)]
    with pytest.raises(UnknownNameError, match=r"cannot tell 'man' from 'woman'.*'person'"):
        score_relations(prompt("a man to the left of a woman"), people, coco)
    assert score_relations(prompt("a man to the left of another man"), people, coco).correct
    assert score_relations(prompt("a woman to the right of a couch"), [*people, Detection("couch", 1, MIDDLE)], coco)
