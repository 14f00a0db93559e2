"""What messages about the report of an evaluation tell to do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from told import tells, told

from learn_to_steer import storage
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.evaluation.image_folders import PromptImage
from learn_to_steer.evaluation.map_keeping import MapKeeper
from learn_to_steer.report.evaluation_report import write_report
from learn_to_steer.report.kept_maps import maps_path


def evaluation(folder: Path) -> Path:
    """The folder of an evaluation of one white image."""
    image = folder / "images" / "00000" / "samples" / "0000.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32), "white").save(image)
    row = {"index": 0, "sample": 0, "prompt": "a dog", "correct": True, "reason": "", "boxes": []}
    (folder / "results.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_a_run_beside_itself(tmp_path: Path) -> None:
    here, there = evaluation(tmp_path / "here"), evaluation(tmp_path / "there")
    with told("name another folder to compare with"):
        write_report(here, here)
    write_report(here, there)


def test_maps_that_are_none(tmp_path: Path) -> None:
    path = maps_path(evaluation(tmp_path), "00000-0000")
    storage.save_tensors(path, {})
    with told("; delete it"):
        write_report(tmp_path)
    path.unlink()
    write_report(tmp_path)


def test_maps_of_several_tries(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = SimpleNamespace(sampling={"num_inference_steps": 4})
    prompt: Any = SimpleNamespace(index=0)
    targets = [PromptImage(prompt, 0, Path("0000.png"))]
    assert MapKeeper(EvaluateConfig(maps=1, tries=2), model, [prompt]).trajectory(targets) is None
    assert tells(caplog.text, "; leave out --tries")
    assert MapKeeper(EvaluateConfig(maps=1), model, [prompt]).trajectory(targets) is not None
