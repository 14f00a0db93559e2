"""The authors' lenient evaluator beside the strict one."""

from __future__ import annotations

import numpy as np
import pytest

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import BenchmarkPrompt, multi_relation
from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import Relation


def prompt(*relations: tuple[str, str, str]) -> BenchmarkPrompt:
    return BenchmarkPrompt(0, "", tuple(Relation(*relation) for relation in relations), {})


def found(**corners: tuple[int, int]) -> list[Detection]:
    return [Detection(name, 0.9, (x, y, x + 10, y + 10)) for name, (x, y) in corners.items()]


# The dog is left of the cat. The cat is above the bus, and not left of it.
SCENE = found(dog=(0, 0), cat=(40, 0), bus=(40, 40))


def test_an_earlier_pair_may_stand_in_for_a_later_one() -> None:
    late = multi_relation.score(prompt(("dog", "left of", "cat"), ("cat", "left of", "bus")), SCENE)
    assert (late.correct, late.held, late.scores) == (False, (True, False), {"compat": 1.0})
    # Not the other way round: what a later pair shows comes too late.
    early = multi_relation.score(prompt(("cat", "left of", "bus"), ("dog", "left of", "cat")), SCENE)
    assert (early.correct, early.scores) == (False, {"compat": 0.0})


def test_a_missing_object_fails_both() -> None:
    lonely = multi_relation.score(prompt(("dog", "left of", "cat"), ("cat", "above", "bus")), SCENE[:2])
    assert (lonely.correct, lonely.present, lonely.scores) == (False, False, {"compat": 0.0})


@pytest.mark.parametrize(("form", "least"), [("3-2", 1.1), ("4-3", 1.6)])
def test_compat_inflates_the_score_of_random_layouts(form: str, least: float) -> None:
    rng = np.random.default_rng(0)
    prompts = benchmarks.prompts(f"multi-relation-{form}")
    strict = compat = 0.0
    for _ in range(20):
        for target in prompts:
            corners = {name: tuple(rng.integers(0, 100, size=2)) for name in sorted(target.objects)}
            score = multi_relation.score(target, found(**corners))
            assert score.scores["compat"] >= score.correct
            strict, compat = strict + score.correct, compat + score.scores["compat"]
    assert compat > least * strict > 0


def test_metrics_show_both() -> None:
    rows = [{"correct": False, "scores": {"compat": 1.0}}, {"correct": True, "scores": {"compat": 1.0}}]
    assert benchmarks.metrics("multi-relation-ood-4-3", rows) == {"strict": 0.5, "compat": 1.0}


def test_ood_asks_for_all_of_the_papers_objects() -> None:
    for name in ("ood", "multi-relation-ood-5-3"):
        objects = {noun for target in benchmarks.prompts(name) for noun in target.objects}
        assert objects == set(multi_relation.OUT_OF_DISTRIBUTION)
    assert len(set(multi_relation.OUT_OF_DISTRIBUTION)) == len(set(multi_relation.IN_DISTRIBUTION)) == 16
