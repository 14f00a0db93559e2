"""Whole evaluations on benchmarks with rules of their own; images are white, and a stub decides what is detected."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer.benchmarks import t2i_compbench
from learn_to_steer.errors import DataError, PromptError, UnsupportedError
from learn_to_steer.evaluation import EvaluateConfig, Scorer, evaluate
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji.sprites import canonical_names


@pytest.fixture
def see(stub_scorer: Callable[..., Scorer]) -> Callable[..., Scorer]:
    """``see(*detections)``: a scorer that finds these in every image, in the emoji detector's vocabulary."""
    return lambda *found: stub_scorer(lambda image: list(found), canonical_names())


@pytest.fixture
def run(blank_model: Any) -> Callable[..., dict[str, Any]]:
    """``run(scorer, out, **settings)``: evaluates white images."""

    def evaluated(scorer: Scorer, out: Path, **settings: Any) -> dict[str, Any]:
        return evaluate(EvaluateConfig(out=str(out), **settings), model=blank_model, scorer=scorer)

    return evaluated


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_counting(see: Any, run: Any, tmp_path: Path) -> None:
    three_cups = see(*(Detection("cup", 0.95, (20 * n, 0, 20 * n + 10, 10)) for n in range(3)))
    summary = run(three_cups, tmp_path, benchmark="geneval-counting", images=2)
    assert summary["prompts"] == 46
    correct = {row["prompt"] for row in rows(tmp_path) if row["correct"]}
    assert correct == {"a photo of three cups"}
    assert summary["metrics"]["tasks"] == {"counting": pytest.approx(1 / 46)}
    assert summary["metrics"]["overall"] == summary["accuracy"]
    assert summary["on_axis_where_present"] is None
    assert {row["tag"] for row in rows(tmp_path)} == {"counting"}
    metadata = next((tmp_path / "images").iterdir()) / "metadata.jsonl"
    assert json.loads(metadata.read_text())["exclude"]
    again = run(three_cups, tmp_path, benchmark="geneval-counting", images=2)
    assert again["metrics"] == summary["metrics"]


def test_a_detector_says_from_which_score_on_its_objects_count(see: Any, run: Any, tmp_path: Path) -> None:
    scorer = see(*(Detection("cup", 0.6, (20 * n, 0, 20 * n + 10, 10)) for n in range(3)))
    settings = {"benchmark": "geneval-counting", "images": 1}
    assert run(scorer, tmp_path / "geneval", **settings)["accuracy"] == 0  # GenEval's .9 is for Mask2Former
    scorer.detector.counting = 0.5
    assert run(scorer, tmp_path / "own", **settings)["accuracy"] == pytest.approx(1 / 46)


def test_colours_need_a_detector_that_tells_them(see: Any, run: Any, tmp_path: Path) -> None:
    scorer = see(Detection("cup", 0.95, (0, 0, 10, 10), "purple"))
    out, settings = tmp_path / "out", {"benchmark": "geneval-colors", "images": 1}
    with pytest.raises(UnsupportedError, match="stub tells no colours"):
        run(scorer, out, **settings)
    assert not out.exists()
    scorer.detector.tells_colors = True
    assert run(scorer, out, **settings)["metrics"]["correct_prompts"] == pytest.approx(1 / 53)
    correct = [row for row in rows(out) if row["correct"]]
    assert [row["prompt"] for row in correct] == ["a photo of a purple cup"]
    assert correct[0]["boxes"][0]["color"] == "purple"


def test_visor(see: Any, run: Any, tmp_path: Path) -> None:
    scorer = see(Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40)))
    summary = run(scorer, tmp_path, benchmark="visor", limit=40)
    assert summary["metrics"]["object_accuracy"] == summary["both_present"]
    assert summary["metrics"]["visor_4"] == summary["accuracy"]
    assert all(row["index"] < 25280 + 6320 for row in rows(tmp_path))


def test_several_relations_show_the_lenient_score_too(see: Any, run: Any, tmp_path: Path) -> None:
    scorer = see(Detection("cat", 0.9, (0, 20, 20, 40)))
    summary = run(scorer, tmp_path, benchmark="multi-relation-3-2", limit=8, images=1)
    assert summary["metrics"] == {"strict": 0.0, "compat": 0.0}
    assert all(row["scores"] == {"compat": 0.0} for row in rows(tmp_path))


def test_a_benchmark_reads_its_file(see: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a dog near a cat\na dog on the left of a mouse\n"
    monkeypatch.setattr(t2i_compbench, "SHA256", "0" * 64)
    (tmp_path / "spatial_val.txt").write_text(text)
    scorer = see(Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (460, 20, 480, 40)))
    out, file = tmp_path / "out", str(tmp_path / "spatial_val.txt")
    settings = {"benchmark": "t2i-compbench-spatial", "data": file, "images": 1}
    with pytest.raises(DataError, match="published prompts"):
        run(scorer, out, **settings)
    monkeypatch.setattr(t2i_compbench, "published_lines", lambda *_: text.splitlines())
    summary = run(scorer, out, **settings)
    # "Near" is relative to the size of the image: the offset along one axis is small.
    assert [row["correct"] for row in rows(out)] == [True, False]
    assert summary["metrics"]["official_ceiling"] == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name a benchmark or a file"),
        ({"benchmark": "visor", "prompts": "mine.jsonl"}, "name a benchmark or a file"),
        ({"prompts": "mine.jsonl", "data": "spatial_val.txt"}, "leave one of them out"),
    ],
)
def test_prompts_come_from_one_place(
    see: Any, run: Any, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(see(), tmp_path, **settings)


def test_a_detector_that_knows_no_object_of_a_benchmark(stub_scorer: Any, run: Any, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="the detector stub knows"):
        run(stub_scorer(lambda image: [], {}), tmp_path, benchmark="geneval-position")


def test_rows_of_an_older_version_are_made_again(see: Any, run: Any, tmp_path: Path) -> None:
    scorer = see(Detection("cat", 0.9, (0, 20, 20, 40)))
    settings = {"benchmark": "multi-relation-3-2", "limit": 2, "images": 1}
    run(scorer, tmp_path, **settings)
    whole = [row | {"seconds": 0} for row in rows(tmp_path)]
    old = [{key: value for key, value in row.items() if key not in ("scores", "tag")} for row in whole]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    run(scorer, tmp_path, **settings)
    assert [row | {"seconds": 0} for row in rows(tmp_path)] == whole


def test_broken_detectors_score_nothing(see: Any, run: Any, stub_scorer: Any, tmp_path: Path) -> None:
    settings = {"benchmark": "geneval-counting", "images": 1}
    cup = Detection("cup", 0.9, (0, 0, 10, 10))
    with pytest.raises(DataError, match="no number"):
        run(see(replace(cup, score=1.5)), tmp_path / "1", **settings)
    answers = iter([[cup]])
    with pytest.raises(DataError, match="contradicts itself on its first image"):
        run(stub_scorer(lambda image: next(answers, []), canonical_names()), tmp_path / "2", **settings)
    with pytest.raises(DataError, match="perhaps the model draws nothing"):
        run(see(), tmp_path / "3", limit=8, **settings)
    assert run(see(), tmp_path / "4", limit=7, **settings)["both_present"] == 0
