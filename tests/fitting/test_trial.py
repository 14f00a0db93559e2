"""The trial: new prompts, with and without steering, from the same noise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer import load_pipeline, storage
from learn_to_steer.classifier import save
from learn_to_steer.collection import Manifest, benchmark_pairs
from learn_to_steer.evaluation import Scorer
from learn_to_steer.fitting import trial
from learn_to_steer.fitting.config import FitConfig
from learn_to_steer.geometry import BASIC, Detection
from learn_to_steer.result_rows import read_rows


def collection(folder: Path, pairs: dict[str, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the rows of some shards, by their names, and nothing else."""
    for shard, its in pairs.items():
        rows = [{"subject": a, "object": b, "prompt": f"a {a} above a {b}"} for a, b in its]
        lines = [storage.jsonl_line(row) for row in rows]
        storage.write_atomic(folder / "shards" / f"{shard}.jsonl", b"".join(lines))
    manifest: Any = type("Manifest", (), {"shards": list(pairs)})
    monkeypatch.setattr(Manifest, "read", lambda folder: manifest)
    return folder


def pair_of(line: dict[str, Any]) -> frozenset[str]:
    ((subject, _, reference),) = line["relations"]
    return frozenset((subject, reference))


def test_prompts_are_of_new_pairs_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = [("kettle", "robot"), ("robot", "violin")]
    known = trial.DrawnPrompts.read(
        collection(tmp_path, {"train-0000": trained, "val-0000": [("snail", "kettle")]}, monkeypatch)
    )
    lines = trial.trial_prompts(known, 24, 0)
    assert lines == trial.trial_prompts(known, 24, 0) != trial.trial_prompts(known, 24, 1)
    new, old = {frozenset(pair) for pair in (("kettle", "snail"), ("kettle", "violin"))}, set(map(frozenset, trained))
    new |= {frozenset(pair) for pair in (("robot", "snail"), ("snail", "violin"))}
    assert {pair_of(line) for line in lines[:4]} == new and {pair_of(line) for line in lines[4:6]} == old
    assert {pair_of(line) for line in lines[6:10]} == new
    assert Counter(line["relations"][0][1] for line in lines) == dict.fromkeys(BASIC, 6)
    assert len({line["prompt"] for line in lines}) == 24
    for line in lines:
        ((subject, _, reference),) = line["relations"]
        assert line["prompt"].startswith(f"a {subject} ") and line["prompt"].endswith(f" a {reference}")


def test_prompts_of_training_images_are_avoided_and_none_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ("kettle", "robot")
    known = trial.DrawnPrompts.read(collection(tmp_path, {"train-0000": [pair]}, monkeypatch))
    for seed in range(8):
        lines = trial.trial_prompts(known, 4, seed)
        assert "a kettle above a robot" not in {line["prompt"] for line in lines} and len(lines) == 4
        assert trial.count_new(known, lines) == {"new_prompts": 4, "new_pairs": 0}
    lines = trial.trial_prompts(known, 48, 0)
    assert len({line["prompt"] for line in lines}) == len(lines) == 8  # four relations, in both orders
    assert trial.count_new(known, lines) == {"new_prompts": 7, "new_pairs": 0}
    wider = trial.DrawnPrompts.read(
        collection(tmp_path, {"train-0000": [pair], "val-0000": [("snail", "kettle")]}, monkeypatch)
    )
    assert trial.count_new(wider, trial.trial_prompts(wider, 24, 0)) == {"new_prompts": 23, "new_pairs": 16}


def test_pairs_of_benchmarks_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = sorted(tuple(sorted(pair)) for pair in benchmark_pairs() if len(pair) == 2)[0]
    known = trial.DrawnPrompts.read(collection(tmp_path, {"train-0000": [held_out, ("kettle", "robot")]}, monkeypatch))
    assert frozenset(held_out) not in {pair_of(line) for line in trial.trial_prompts(known, 30, 0)}


def row(index: int, correct: bool, once: bool | None = True, passes: int = 0) -> dict[str, Any]:
    cost = {"passes": passes, "seconds": 1.0 + passes}
    return {"index": index, "sample": 0, "correct": correct, "present": True, "once": once} | cost


def test_differences_are_paired() -> None:
    unsteered = [row(n, n < 5) for n in range(20)]
    compared = trial.compare_trials(unsteered, [row(n, n < 15, once=n > 0, passes=4) for n in range(20)])
    assert (compared["images"], compared["passes"]) == (20, 4) and compared["helps"]
    assert compared["right"]["unsteered"] == 0.25 and compared["right"]["steered"] == 0.75
    assert compared["right"]["difference"][0] == 0.5 and 0.2 < compared["right"]["difference"][1] < 0.4
    assert compared["once"]["difference"][0] == pytest.approx(-0.05)
    assert compared["seconds"] == {"unsteered": 1, "steered": 5}
    assert not trial.compare_trials(unsteered, [row(n, n < 6) for n in range(20)])["helps"]
    assert not trial.compare_trials(unsteered, unsteered)["helps"]


class DogLeftOfCat:
    """Sees a dog to the left of a cat in every image."""

    name, counting, tells_colors, identity = "stub", None, False, {"name": "stub"}
    seen = 0

    def detect(self, images: Any, queries: Any = None) -> list[list[Detection]]:
        self.seen += len(images)
        return [[Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))] for _ in images]


def test_images_with_and_without_steering(
    saved_sd: Path,
    tiny_sd: Any,
    random_classifier: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    detector = DogLeftOfCat()
    scorer = Scorer(detector, {"dog": "dog", "cat": "cat"})
    monkeypatch.setattr(trial, "load_scorer", lambda name, device: scorer)
    folder = collection(tmp_path / "maps", {"train-0000": [("dog", "cat")]}, monkeypatch)
    save(random_classifier(tiny_sd), tmp_path / "depth-7")
    pipe = load_pipeline(str(saved_sd), "cpu")
    config = FitConfig(model=str(saved_sd), steps=2, side=64, trial=4, device="cpu", out=str(tmp_path))
    made = trial.Trial(config, pipe, "stub", folder, tmp_path / "trial", progress=True)
    compared = made.compare(tmp_path / "depth-7")
    shown = capsys.readouterr().err
    assert "trial, unsteered" in shown and "trial of depth-7" in shown and shown.count("4/4 images") == 2
    assert compared["images"] == 4 and compared["detector"] == "stub" and compared["passes"] > 0
    assert (compared["new_prompts"], compared["new_pairs"]) == (4, 0)
    # The detector sees the same in all, so as many are right with and without steering.
    rows = read_rows(tmp_path / "trial" / compared["folders"]["unsteered"])
    left = [row["relations"][0] in (["dog", "left of", "cat"], ["cat", "right of", "dog"]) for row in rows]
    assert [row["correct"] for row in rows] == left
    assert compared["right"]["difference"] == [0, 0, 0] and not compared["helps"]
    seen = detector.seen
    assert made.steered(tmp_path / "depth-7") == {(row["index"], 0): row["correct"] for row in rows}
    # The same run, from a folder with other relative paths, finds what is there.
    monkeypatch.chdir(tmp_path / "maps")
    again = trial.Trial(config, pipe, "stub", folder, Path("../trial"))
    assert again.compare(Path("../depth-7")) == compared
    assert detector.seen == seen
