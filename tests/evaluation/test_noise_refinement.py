"""FOR's second stage: what the verifier misses is mended from the same noise, and the better picture is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from learn_to_steer.errors import UnknownNameError, UnsupportedError
from learn_to_steer.evaluation import EvaluateConfig, Job, ModelConfig, draw, evaluate, open_model
from learn_to_steer.evaluation.noise_refinement import draw_refined
from learn_to_steer.evaluation.score import Judge
from learn_to_steer.geometry import Detection
from learn_to_steer.objectives._for_repair import ForRepair
from learn_to_steer.prompts import parse

PROMPT = "a dog to the left of a cat"
DOG, CAT = Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))


class Told:
    """Answers what it is told, picture after picture."""

    name, tells_colors, counting = "told", False, None
    identity: ClassVar = {"name": "told"}

    def __init__(self, *answers: list[Detection]) -> None:
        self.answers = list(answers)

    def detect(self, pictures: Any, asked: Any = None) -> list[list[Detection]]:
        return [self.answers.pop(0) for _ in pictures]


@pytest.fixture
def model(saved_sd):
    return open_model(ModelConfig(model=str(saved_sd), objective="for-unified", steps=4))


@pytest.fixture
def mended(monkeypatch):
    """The objects that were mended, call by call."""
    found = []
    begin = ForRepair.__init__
    monkeypatch.setattr(
        ForRepair, "__init__", lambda self, faulty: (found.append(list(faulty)), begin(self, faulty))[1]
    )
    return found


@pytest.mark.parametrize(
    ("answers", "faulty", "second_is_kept"),
    [
        (([DOG], [DOG, CAT]), [1], True),  # the cat is missing, and found in the second try
        (([DOG, CAT], [DOG]), [1], False),  # nothing is missing: the weakest is mended all the same
        (([], [DOG]), [0, 1], True),
    ],
)
def test_the_better_of_two_tries_is_kept(model, mended, answers, faulty, second_is_kept):
    job = Job(PROMPT, tuple(parse(PROMPT)), 0)
    (picture,) = draw_refined(model, Judge(Told(*answers), {"dog": "dog", "cat": "cat"}), [job], 3)
    first = draw(model, [job], 3, steer=True)[0]
    assert mended == [faulty]
    assert np.array_equal(np.asarray(picture.image), np.asarray(first.image)) is not second_is_kept
    # Two published steps of one pass each per try, and one pass more for every object that is mended.
    assert first.report.passes == 2 and picture.report.passes == 2 * 2 + len(faulty)


def test_pictures_without_relations_are_drawn_once(model, mended):
    (picture,) = draw_refined(model, Judge(Told(), {}), [Job("a dog", (), 0)], 3)
    assert picture.report is None and mended == []


def test_a_verifier_needs_the_unified_loss(saved_sd, left_dog, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPT}) + "\n")
    config = EvaluateConfig(
        model=str(saved_sd), objective="for-unified", prompts=str(prompts), detector="stub", verifier="stub"
    )
    config = replace(config, images=1, steps=2, out=str(tmp_path / "out"))
    told = "learn_to_steer.evaluation.noise_refinement.find_detector"
    monkeypatch.setattr(told, lambda name, device: Judge(left_dog, {"dog": "dog", "cat": "cat"}))
    assert evaluate(config)["passes_per_image"] == 3
    assert json.loads((tmp_path / "out" / "config.json").read_text())["verified_by"] == {"name": "stub"}
    with pytest.raises(UnsupportedError, match="for-unified"):
        evaluate(replace(config, objective="for-spatial", out=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(told, lambda name, device: Judge(left_dog, {"dog": "dog"}))
    with pytest.raises(UnknownNameError, match="cat"):
        evaluate(replace(config, out=str(tmp_path / "other")))


def test_an_object_said_twice_is_mended_at_both_places(model, mended):
    prompt = "a dog to the left of a cat and the dog is above a bird"
    answers = [[CAT, Detection("bird", 0.9, (0, 50, 20, 60))]] * 2
    vocabulary = {name: name for name in ("dog", "cat", "bird")}
    draw_refined(model, Judge(Told(*answers), vocabulary), [Job(prompt, tuple(parse(prompt)), 0)], 3)
    assert mended == [[0, 2]]  # dog, cat, the second dog, bird
