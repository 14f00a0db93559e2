"""A detector shows what it can see before it scores anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.score import Judge, find_detector
from learn_to_steer.evaluation.self_test import require_knowing
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji.self_test import known


@pytest.fixture(scope="module")
def judge() -> Judge:
    return find_detector("emoji")


def test_the_packaged_detectors_pass(judge):
    require_knowing(judge)
    assert {one.name for _, there in known() for one in there} <= set(judge.vocabulary)
    assert find_detector("emoji-templates").known is known


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda one: replace(one, name="cat" if one.name == "dog" else one.name), "does not find dog in"),
        (lambda one: replace(one, box=tuple(edge + 30 for edge in one.box)), "does not find dog, bus, banana"),
    ],
)
def test_wrong_labels_and_shifted_boxes_are_refused(judge, monkeypatch, broken, told):
    found = judge.detector.detect

    def detect(pictures, asked=None) -> list[list[Detection]]:
        return [[broken(one) for one in seen] for seen in found(pictures, asked)]

    monkeypatch.setattr(judge.detector, "detect", detect)
    with pytest.raises(DataError, match=told):
        require_knowing(judge)


def test_without_known_pictures_there_is_nothing_to_test(judge):
    require_knowing(replace(judge, known=None))
