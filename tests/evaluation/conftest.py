"""A detector that needs no weights."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from learn_to_steer.evaluation.score import Judge
from learn_to_steer.geometry import Detection

VOCABULARY = {"dog": "dog", "puppy": "dog", "cat": "cat"}


class LeftDog:
    """Sees a dog left of a cat in every picture, and counts the pictures."""

    name = "stub"
    tells_colors = False
    counting = None
    identity: ClassVar = {"name": "stub"}

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, pictures: Any, asked: Any = None) -> list[list[Detection]]:
        self.seen += len(pictures)
        found = [Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))]
        return [list(found) for _ in pictures]


@pytest.fixture
def left_dog(monkeypatch: pytest.MonkeyPatch) -> LeftDog:
    detector = LeftDog()
    monkeypatch.setattr("learn_to_steer.evaluation.run.find_detector", lambda name, device: Judge(detector, VOCABULARY))
    return detector
