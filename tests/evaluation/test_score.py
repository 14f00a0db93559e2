"""Pictures that are there already: three layouts, what is missing, what was seen before, broken detectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from learn_to_steer import benchmarks
from learn_to_steer.errors import DataError, PromptError
from learn_to_steer.evaluation import ScoreConfig, score
from learn_to_steer.evaluation.score import Judge
from learn_to_steer.geometry import Detection

PROMPTS = ["a dog to the left of a cat", "a cat to the left of a puppy"]
VOCABULARY = {"dog": "dog", "puppy": "dog", "cat": "cat"}


class Painted:
    """Sees a dog left of a cat in red pictures and nothing in others."""

    name, tells_colors, counting = "stub", False, None
    identity: ClassVar = {"name": "stub"}

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, pictures: Any, asked: Any = None) -> list[list[Detection]]:
        self.seen += len(pictures)
        pair = [Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))]
        return [list(pair) if picture.getpixel((0, 0))[0] > 128 else [] for picture in pictures]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Painted:
    found = Painted()
    module = "learn_to_steer.evaluation.rescore.find_detector"
    monkeypatch.setattr(module, lambda name, device: Judge(found, VOCABULARY))
    return found


def paint(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One value of blue a picture, so that no two files are the same.
    Image.new("RGB", (64, 64), (red, 0, hash(path.name) % 256)).save(path)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return str(path)


def as_geneval(root: Path, prompts: str) -> Path:
    for prompt in benchmarks.load_file(prompts):
        folder = root / f"{prompt.index:05d}"
        paint(folder / "samples" / "0000.png", 255)
        paint(folder / "samples" / "0001.png", 0)
        (folder / "metadata.jsonl").write_text(json.dumps(prompt.metadata))
        paint(folder / "grid.png", 0)
    return root


def as_compbench(root: Path, prompts: str) -> Path:
    for prompt in PROMPTS:
        paint(root / "samples" / f"{prompt}_000000.png", 255)
        paint(root / "samples" / f"{prompt}_000003.png", 0)
    return root


def as_manifest(root: Path, prompts: str) -> Path:
    rows = []
    for number, prompt in enumerate(PROMPTS):
        for red in (255, 0):
            paint(root / f"{number}-{red}.png", red)
            rows.append({"image": f"{number}-{red}.png", "prompt": prompt})
    (root / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "list.jsonl"


@pytest.mark.parametrize("layout", [as_geneval, as_compbench, as_manifest])
def test_layouts(layout: Callable[[Path, str], Path], prompts: str, detector: Painted, tmp_path: Path) -> None:
    place = layout(tmp_path / "pictures", prompts)
    config = ScoreConfig(str(place), prompts=prompts, detector="stub", out=str(tmp_path / "out"))
    summary = score(config)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    verdicts = [(row["index"], row["sample"], row["correct"], row["present"]) for row in rows]
    assert verdicts == [(0, 0, True, True), (0, 1, False, False), (1, 0, False, True), (1, 1, False, False)]
    assert (summary["accuracy"], summary["both_present"], summary["passes_per_image"]) == (0.25, 0.5, None)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    before = detector.seen
    assert score(replace(config, images=1))["accuracy"] == 0.5
    assert detector.seen == before  # nothing was looked at again


def test_missing_and_foreign_pictures_are_errors(prompts: str, detector: Painted, tmp_path: Path) -> None:
    root = as_geneval(tmp_path / "pictures", prompts)
    with pytest.raises(DataError, match="name a --detector"):
        score(ScoreConfig(str(root), prompts=prompts, out=str(tmp_path / "out")))
    config = ScoreConfig(str(root), prompts=prompts, detector="stub", out=str(tmp_path / "out"))
    (root / "00001" / "samples" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"1 pictures are missing.*number 1.*has 1 of 2"):
        score(config)
    assert score(replace(config, images=1))["images"] == 2
    other = {"include": [{"class": "bus"}], "prompt": "a bus"}
    (root / "00000" / "metadata.jsonl").write_text(json.dumps(other))
    with pytest.raises(DataError, match="'a bus'"):
        score(replace(config, images=1))
    (root / "00000" / "metadata.jsonl").unlink()
    (root / "00000" / "samples" / "0000.png").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        score(replace(config, images=1))
    with pytest.raises(DataError, match="neither folders"):
        score(replace(config, pictures=str(tmp_path / "out"), out=str(tmp_path / "other")))
    with pytest.raises(DataError, match="does not exist"):
        score(replace(config, pictures=str(tmp_path / "nowhere")))


def test_broken_detectors_score_nothing(
    prompts: str, detector: Painted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "pictures"
    for prompt in PROMPTS:
        for k in range(5):
            paint(root / f"{prompt}_{k:06d}.png", 0)
    config = ScoreConfig(str(root), prompts=prompts, detector="stub", out=str(tmp_path / "out"))
    with pytest.raises(DataError, match="sees nothing in any of 10 pictures"):
        score(config)
    box = (0.0, 0.0, 9.0, 9.0)
    monkeypatch.setattr(detector, "detect", lambda p, a=None: [[Detection("dog", float("nan"), box)] for _ in p])
    with pytest.raises(DataError, match=r"contradicts itself|no number"):
        score(replace(config, out=str(tmp_path / "second")))
    monkeypatch.setattr(detector, "detect", lambda p, a=None: [[Detection("dog", 0.9, box)] * len(p) for _ in p])
    with pytest.raises(DataError, match="contradicts itself"):
        score(replace(config, out=str(tmp_path / "third")))


def test_an_evaluation_is_scored_again_and_compared(prompts: str, detector: Painted, tmp_path: Path) -> None:
    made = tmp_path / "made"
    as_geneval(made / "images", prompts)
    (made / "config.json").write_text(
        json.dumps(
            {"model": "some/model", "detector": "stub", "benchmark": None, "prompts": prompts, "data": None, "limit": 1}
        )
    )
    kept = {"passes": 3, "checks": 1, "converged": True, "probability": [0.9], "note": "", "seconds": 2.0}
    listed = [
        {"index": 0, "sample": k, "prompt": PROMPTS[0], "correct": False, "present": True, **kept} for k in (0, 1)
    ]
    (made / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    with pytest.raises(DataError, match="stopped before its end"):
        score(ScoreConfig(str(made), out=str(tmp_path / "again")))
    (made / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="choose another folder"):
        score(ScoreConfig(str(made), out=str(made)))
    summary = score(ScoreConfig(str(made), against=str(made), out=str(tmp_path / "again")))
    assert (summary["images"], summary["passes_per_image"], summary["accuracy"]) == (2, 3.0, 0.5)
    assert summary["against"]["correct"][0] == 0.5 and summary["against"]["present"][0] == -0.5
    with pytest.raises(DataError, match=r"no results\.jsonl"):
        score(ScoreConfig(str(made), against=str(tmp_path), out=str(tmp_path / "again")))
    (made / "summary.json").write_text(json.dumps({"judged_by": {"name": "another"}}))
    with pytest.raises(DataError, match="was judged by"):
        score(ScoreConfig(str(made), against=str(made), out=str(tmp_path / "again")))
    (made / "results.jsonl").write_text(json.dumps(listed[0] | {"index": 99}) + "\n")
    with pytest.raises(PromptError, match="none of the pictures"):
        score(ScoreConfig(str(made), out=str(tmp_path / "again")))
    generated = tmp_path / "generated"
    generated.mkdir()
    (generated / "config.json").write_text('{"model": "sd:emoji"}')
    with pytest.raises(DataError, match="name a benchmark"):
        score(ScoreConfig(str(generated), out=str(tmp_path / "again")))
