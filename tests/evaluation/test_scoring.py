"""A detector shows what it can see before it scores anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.scoring import Scorer, default_detector, load_scorer, run_self_test
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji.self_test import self_test_images


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load_scorer("emoji")


def test_the_packaged_detectors_pass(scorer):
    assert scorer.self_test_images is self_test_images
    assert {one.name for _, expected in self_test_images() for one in expected} <= set(scorer.vocabulary)
    assert load_scorer("emoji-templates").self_test_images is self_test_images


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda one: replace(one, name="cat" if one.name == "dog" else one.name), "does not find dog in"),
        (lambda one: replace(one, box=tuple(edge + 30 for edge in one.box)), "does not find dog, bus, banana"),
        (lambda one: replace(one, box=tuple(edge + 10 for edge in one.box)), "does not find dog, bus, banana"),
    ],
)
def test_wrong_labels_and_shifted_boxes_are_refused(scorer, monkeypatch, broken, message):
    detect = scorer.detector.detect

    def broken_detect(images, queries=None) -> list[list[Detection]]:
        return [[broken(one) for one in found] for found in detect(images, queries)]

    monkeypatch.setattr(scorer.detector, "detect", broken_detect)
    with pytest.raises(DataError, match=message):
        run_self_test(scorer)


def test_loading_a_scorer_tests_it(scorer, monkeypatch):
    monkeypatch.setattr(type(scorer.detector), "detect", lambda self, images, queries=None: [[] for _ in images])
    with pytest.raises(DataError, match="fails its self-test"):
        load_scorer("emoji")


def test_without_self_test_images_there_is_nothing_to_test(scorer):
    run_self_test(replace(scorer, self_test_images=None))


def test_only_models_of_the_package_have_a_default_detector():
    assert default_detector("sd:emoji") == "emoji"
    for other in ("flux:schnell", "some/model", None):
        with pytest.raises(DataError, match="name a --detector for images of"):
            default_detector(other)
