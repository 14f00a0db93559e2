"""Detectors and models that need no weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from learn_to_steer.evaluation import EvaluateConfig, Scorer
from learn_to_steer.geometry import Detection

VOCABULARY = {"dog": "dog", "puppy": "dog", "cat": "cat"}
DOG, CAT = Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))


class StubDetector:
    """Answers with ``find(image)`` and counts its images."""

    counting: float | None = None
    tells_colors = False

    def __init__(self, find: Callable[[Image.Image], list[Detection]], name: str) -> None:
        self.find = find
        self.name = name
        self.identity = {"name": name}
        self.seen = 0

    def detect(self, images: Any, queries: Any = None) -> list[list[Detection]]:
        self.seen += len(images)
        return [list(self.find(image)) for image in images]


@pytest.fixture
def stub_scorer() -> Callable[..., Scorer]:
    """``stub_scorer(find, vocabulary, name="stub")``: a scorer whose detector answers with ``find(image)``."""

    def build(
        find: Callable[[Image.Image], list[Detection]],
        vocabulary: Mapping[str, str] | None = VOCABULARY,
        name: str = "stub",
    ) -> Scorer:
        return Scorer(StubDetector(find, name), vocabulary)

    return build


@pytest.fixture
def config_of(saved_sd: Any, tmp_path: Any) -> Callable[..., EvaluateConfig]:
    """``config_of(prompts, **more)``: an evaluation of the tiny model on some prompts, into tmp_path / "out"."""

    def build(prompts: Sequence[Mapping[str, Any]], **more: Any) -> EvaluateConfig:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in prompts))
        return EvaluateConfig(
            model=str(saved_sd),
            classifier=str(saved_sd / "classifier"),
            prompts=str(path),
            detector="stub",
            steps=2,
            out=str(tmp_path / "out"),
            settings={"passes": 1, "threshold": 1.1},
            **more,
        )

    return build


@pytest.fixture
def left_dog(stub_scorer: Callable[..., Scorer]) -> Scorer:
    """Sees a dog to the left of a cat in every image."""
    return stub_scorer(lambda image: [DOG, CAT])


@pytest.fixture
def blank_model() -> Any:
    """A model that draws white images of 480 x 480 pixels and cannot be steered."""

    def pipe(prompt: list[str], **sampling: Any) -> Any:
        return SimpleNamespace(images=[Image.new("RGB", (480, 480), "white") for _ in prompt])

    return SimpleNamespace(pipe=pipe, sampling={}, fingerprints={}, steered=None)
