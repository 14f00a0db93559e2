"""FOR's second stage: what the verifier misses is refined from the same noise, and the better image is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from learn_to_steer.errors import UnknownNameError, UnsupportedError
from learn_to_steer.evaluation import EvaluateConfig, Job, ModelConfig, draw, evaluate, open_model
from learn_to_steer.evaluation.noise_refinement import draw_refined
from learn_to_steer.geometry import Detection
from learn_to_steer.losses.for_unified import ForStage2
from learn_to_steer.prompts import parse

PROMPT = "a dog to the left of a cat"
DOG, CAT = Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))


@pytest.fixture
def verifier(stub_scorer):
    """``verifier(*answers)``: answers with these detections, image after image."""

    def build(*answers, vocabulary=None):
        left = iter(answers)
        return stub_scorer(lambda image: next(left), vocabulary or {"dog": "dog", "cat": "cat"})

    return build


@pytest.fixture
def model(saved_sd):
    return open_model(ModelConfig(model=str(saved_sd), objective="for-unified", steps=4))


@pytest.fixture
def refined(monkeypatch):
    """The objects that were refined, call by call."""
    found = []
    begin = ForStage2.__init__
    monkeypatch.setattr(
        ForStage2, "__init__", lambda self, faulty: (found.append(list(faulty)), begin(self, faulty))[1]
    )
    return found


@pytest.mark.parametrize(
    ("answers", "faulty", "second_is_kept"),
    [
        (([DOG], [DOG, CAT]), [1], True),  # the cat is missing, and found in the second try
        (([DOG, CAT], [DOG]), [1], False),  # nothing is missing: the weakest is refined all the same
        (([], [DOG]), [0, 1], True),
    ],
)
def test_the_better_of_two_tries_is_kept(model, verifier, refined, answers, faulty, second_is_kept):
    job = Job(PROMPT, tuple(parse(PROMPT)), 0)
    (kept,) = draw_refined(model, verifier(*answers), [job], 3)
    first = draw(model, [job], 3, steer=True)[0]
    assert refined == [faulty]
    assert np.array_equal(np.asarray(kept.image), np.asarray(first.image)) is not second_is_kept
    # Two published steps of one pass each per try, and one pass more for every object that is refined.
    assert first.report.passes == 2 and kept.report.passes == 2 * 2 + len(faulty)


def test_images_without_relations_are_generated_once(model, verifier, refined):
    (only,) = draw_refined(model, verifier(), [Job("a dog", (), 0)], 3)
    assert only.report is None and refined == []


def test_the_second_stage_in_an_evaluation(saved_sd, left_dog, stub_scorer, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPT}) + "\n")
    config = EvaluateConfig(
        model=str(saved_sd), objective="for-unified", prompts=str(prompts), images=1, steps=2, out=str(tmp_path / "out")
    )
    eye = stub_scorer(lambda image: [DOG, CAT], name="eye")
    assert evaluate(config, scorer=left_dog, verifier=eye)["passes_per_image"] == 3
    assert json.loads((tmp_path / "out" / "config.json").read_text())["verified_by"] == {"name": "eye"}
    other = replace(config, out=str(tmp_path / "other"))
    with pytest.raises(UnsupportedError, match="second stage of its own"):  # before the verifier is loaded
        evaluate(replace(other, tries=2, verifier="no-such-detector"), scorer=left_dog)
    with pytest.raises(UnknownNameError, match="cat"):
        evaluate(other, scorer=left_dog, verifier=replace(eye, vocabulary={"dog": "dog"}))
    assert not (tmp_path / "other").exists()


def test_an_object_mentioned_twice_is_refined_at_both_places(model, verifier, refined):
    prompt = "a dog to the left of a cat and the dog is above a bird"
    answers = [[CAT, Detection("bird", 0.9, (0, 50, 20, 60))]] * 2
    vocabulary = {name: name for name in ("dog", "cat", "bird")}
    draw_refined(model, verifier(*answers, vocabulary=vocabulary), [Job(prompt, tuple(parse(prompt)), 0)], 3)
    assert refined == [[0, 2]]  # dog, cat, the second dog, bird
