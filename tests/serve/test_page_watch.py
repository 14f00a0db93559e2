"""A watched job: it tells of its steps, and draws the same picture as one that is not watched."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from learn_to_steer.prompts import parse
from learn_to_steer.serve.drawing import Painter
from learn_to_steer.serve.jobs import Job, Picture, StepSeen

PROMPT = "a dog to the left of a cat"
JOB = Job(PROMPT, 3, 128, 128, parse(PROMPT))


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter("flux:emoji-schnell", None, "cpu", rows=1)


def _draw(painter: Painter, job: Job) -> tuple[bytes, Picture, list[StepSeen]]:
    seen: list[StepSeen] = []
    (picture,) = painter.draw([job], lambda: False, seen.append)
    assert isinstance(picture, Picture)
    return Image.open(io.BytesIO(picture.png)).tobytes(), picture, seen


@pytest.mark.parametrize("steer", [False, True])
def test_a_watched_picture_is_the_same_and_all_its_steps_are_told(painter: Painter, steer: bool) -> None:
    job = replace(JOB, steer=steer)
    pixels, plain, seen = _draw(painter, job)
    assert seen == [] and plain.details == {}
    watched, picture, seen = _draw(painter, replace(job, watched=True))
    assert watched == pixels
    assert picture.steering["passes"] == plain.steering["passes"] == (6 if steer else 0)
    assert [step.step for step in seen] == [0, 1, 2, 3]
    for step in seen:
        assert step.picture is not None and Image.open(io.BytesIO(step.picture)).size == (128, 128)
        assert list(step.maps) == ["dog", "cat"] and step.maps["dog"] != step.maps["cat"]
    assert picture.details["curve"][0][1] == picture.steering["probability"]
    assert (picture.steering["probability"][0] > 0.8) == steer


def test_without_strength_nothing_moves_and_with_tries_each_is_told(painter: Painter) -> None:
    unsteered, _, _ = _draw(painter, replace(JOB, steer=False))
    pixels, picture, seen = _draw(painter, replace(JOB, strength=0.0, tries=2, threshold=0.999, watched=True))
    tries = picture.details["tries"]
    assert [step.attempt for step in seen] == [attempt for attempt in range(tries) for _ in range(4)]
    assert tries == 2 and (picture.details["kept_try"] != 0 or pixels == unsteered)
