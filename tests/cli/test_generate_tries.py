"""``generate --tries``: what the report says, and that its maps are those of the try that was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learn_to_steer.cli import prompt_images
from learn_to_steer.report import LatentTrajectory

PROMPT = "a dog to the left of a cat"


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list[LatentTrajectory]:
    """The trajectories whose maps are shown."""
    shown: list[LatentTrajectory] = []
    original = prompt_images.object_maps

    def recorded(pipe: Any, prompt: Any, relations: Any, images: Any, sampling: Any) -> Any:
        shown.extend(trajectory for trajectory, _ in images)
        return original(pipe, prompt, relations, images, sampling)

    monkeypatch.setattr(prompt_images, "object_maps", recorded)
    return shown


def test_the_best_try_is_reported_and_shown(run: Any, model: list[str], mapped: Any, tmp_path: Path) -> None:
    settings = ["--set", "passes=1", "--set", "threshold=1", "--verifier", "classifier", "--steps", "3"]
    told = run("generate", PROMPT, *model, *settings, "--images", "3", "--tries", "4", "--out", tmp_path)
    assert told.code == 0, told.err
    assert told.out.count("not satisfied after 4 tries (classifier: its last estimate is 0.") == 3
    report = json.loads((tmp_path / "report.json").read_text())["prompts"][0]
    steering = [image["steering"] for image in report["images"]]
    assert [(one["satisfied"], one["tries"], one["passes"]) for one in steering] == [
        (False, 4, 4 * len(one["steps"])) for one in steering
    ]
    assert all("cannot see a missing or doubled object" in one["why"] for one in steering)
    assert len(mapped) == 2 and mapped[1].kept
    # The same maps come from a call of their own with the noise of that try.
    kept = steering[0]["kept_try"]
    latents = mapped[1].kept[2][1][0]
    again = run("generate", PROMPT, *model, *settings, "--tries", str(kept + 1), "--out", tmp_path / "again")
    assert again.code == 0
    assert np.abs((mapped[3].kept[2][1][0] - latents).numpy()).max() < 1e-3


def test_images_that_are_not_steered_need_a_detector(run: Any, model: list[str], tmp_path: Path) -> None:
    told = run("generate", PROMPT, "--model", model[1], "--steps", "2", "--no-steer", "--tries", "2", "--out", tmp_path)
    assert told.code == 2 and "name a detector as verifier" in told.err
