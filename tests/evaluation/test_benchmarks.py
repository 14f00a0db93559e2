"""Benchmarks with rules of their own on the whole route; pictures are blank and the detector is told what to see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image

from learn_to_steer.benchmarks import t2i_compbench
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.evaluation import EvaluateConfig, Picture, evaluate
from learn_to_steer.evaluation.score import Judge
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji.sprites import canonical_names


class Blank:
    """Sees the same in every picture."""

    name, tells_colors, counting = "stub", False, None
    identity: ClassVar = {"name": "stub"}

    def __init__(self, *found: Detection) -> None:
        self.found = list(found)

    def detect(self, pictures: Any, asked: Any = None) -> list[list[Detection]]:
        return [list(self.found) for _ in pictures]


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``see(*detections)``: evaluations find these in every picture, and no model is loaded."""

    def draw(model: Any, jobs: Any, seed: int, *, steer: bool) -> list[Picture]:
        return [Picture(Image.new("RGB", (480, 480)), None, 0.0) for _ in jobs]

    def seeing(*found: Detection) -> Blank:
        detector = Blank(*found)
        room = "learn_to_steer.evaluation.run"
        monkeypatch.setattr(f"{room}.find_detector", lambda name, device: Judge(detector, canonical_names()))
        monkeypatch.setattr(
            f"{room}.open_model", lambda config: SimpleNamespace(sampling={}, fingerprints={}, steered=None)
        )
        monkeypatch.setattr(f"{room}.draw", draw)
        return detector

    return seeing


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_counting(see: Any, tmp_path: Path) -> None:
    see(*(Detection("cup", 0.95, (20 * n, 0, 20 * n + 10, 10)) for n in range(3)))
    config = EvaluateConfig(benchmark="geneval-counting", images=2, out=str(tmp_path))
    summary = evaluate(config)
    assert summary["prompts"] == 46
    right = {row["prompt"] for row in rows(tmp_path) if row["correct"]}
    assert right == {"a photo of three cups"}
    assert summary["metrics"]["tasks"] == {"counting": pytest.approx(1 / 46)}
    assert summary["metrics"]["overall"] == summary["accuracy"]
    assert summary["on_axis_where_present"] is None
    assert {row["tag"] for row in rows(tmp_path)} == {"counting"}
    metadata = next((tmp_path / "images").iterdir()) / "metadata.jsonl"
    assert json.loads(metadata.read_text())["exclude"]
    assert evaluate(config)["metrics"] == summary["metrics"]


def test_a_detector_says_when_its_objects_count(see: Any, tmp_path: Path) -> None:
    detector = see(*(Detection("cup", 0.6, (20 * n, 0, 20 * n + 10, 10)) for n in range(3)))
    config = EvaluateConfig(benchmark="geneval-counting", images=1, out=str(tmp_path / "sure"))
    assert evaluate(config)["accuracy"] == 0  # GenEval's .9 is for Mask2Former
    detector.counting = 0.5
    assert evaluate(replace(config, out=str(tmp_path / "own")))["accuracy"] == pytest.approx(1 / 46)


def test_colours_need_a_detector_that_tells_them(see: Any, tmp_path: Path) -> None:
    detector = see(Detection("cup", 0.95, (0, 0, 10, 10), "purple"))
    config = EvaluateConfig(benchmark="geneval-colors", images=1, out=str(tmp_path / "out"))
    with pytest.raises(UnsupportedError, match="stub tells no colours"):
        evaluate(config)
    assert not (tmp_path / "out").exists()
    detector.tells_colors = True
    assert evaluate(config)["metrics"]["correct_prompts"] == pytest.approx(1 / 53)
    right = [row for row in rows(tmp_path / "out") if row["correct"]]
    assert [row["prompt"] for row in right] == ["a photo of a purple cup"]
    assert right[0]["boxes"][0]["color"] == "purple"


def test_visor(see: Any, tmp_path: Path) -> None:
    see(Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40)))
    summary = evaluate(EvaluateConfig(benchmark="visor", limit=40, out=str(tmp_path)))
    assert summary["metrics"]["object_accuracy"] == summary["both_present"]
    assert summary["metrics"]["visor_4"] == summary["accuracy"]
    assert {row["index"] < 25280 + 6320 for row in rows(tmp_path)} == {True}


def test_several_relations_show_the_lenient_score_too(see: Any, tmp_path: Path) -> None:
    see(Detection("cat", 0.9, (0, 20, 20, 40)))
    summary = evaluate(EvaluateConfig(benchmark="multi-relation-3-2", limit=8, images=1, out=str(tmp_path)))
    assert summary["metrics"] == {"strict": 0.0, "compat": 0.0}
    assert all(row["scores"] == {"compat": 0.0} for row in rows(tmp_path))


def test_a_benchmark_reads_its_file(see: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a dog near a cat\na dog on the left of a mouse\n"
    monkeypatch.setattr(t2i_compbench, "SHA256", "0" * 64)
    (tmp_path / "spatial_val.txt").write_text(text)
    see(Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (460, 20, 480, 40)))
    config = EvaluateConfig(
        benchmark="t2i-compbench-spatial", data=str(tmp_path / "spatial_val.txt"), images=1, out=str(tmp_path / "out")
    )
    with pytest.raises(DataError, match="published prompts"):
        evaluate(config)
    monkeypatch.setattr("learn_to_steer.benchmarks.t2i_compbench.published_lines", lambda *_: text.splitlines())
    summary = evaluate(config)
    # Near is judged in the picture's own size: one offset of the two is small.
    assert [row["correct"] for row in rows(tmp_path / "out")] == [True, False]
    assert summary["metrics"]["official_ceiling"] == 0.5
    with pytest.raises(DataError, match="leave it out beside --prompts"):
        evaluate(EvaluateConfig(prompts="mine.jsonl", data="spatial_val.txt"))


def test_rows_of_an_older_version_are_made_again(see: Any, tmp_path: Path) -> None:
    see(Detection("cat", 0.9, (0, 20, 20, 40)))
    config = EvaluateConfig(benchmark="multi-relation-3-2", limit=2, images=1, out=str(tmp_path))
    evaluate(config)
    whole = rows(tmp_path)
    old = [{key: value for key, value in row.items() if key not in ("scores", "tag")} for row in whole]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    evaluate(config)
    assert rows(tmp_path) == whole
