"""``verify`` names what is damaged in every kind of folder, and how to mend it; the remedies work."""

from __future__ import annotations

import json
import lzma
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from learn_to_steer import benchmarks, storage
from learn_to_steer.cli import main
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation import EvaluateConfig, ScoreConfig, Scorer, evaluate, png_bytes, score
from learn_to_steer.geometry import Detection
from learn_to_steer.training import TrainConfig, train
from learn_to_steer.verification import verify

EDITION1 = Path(__file__).parent / "fixtures" / "edition1"
TRAIN = TrainConfig(epochs=2, width=4, layers=1, heads=1, hidden=4, head_layers=1, head_heads=1, head_hidden=4)


class StubDetector:
    """Finds a dog to the left of a cat in every image."""

    name, counting, tells_colors = "stub", None, False

    def __init__(self) -> None:
        self.identity = {"name": "stub"}

    def detect(self, images: Any, queries: Any = None) -> list[list[Detection]]:
        return [[Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))] for _ in images]


SCORER = Scorer(StubDetector(), {"dog": "dog", "cat": "cat"})


@pytest.fixture
def evaluation(tmp_path):
    """The folder of an evaluation of white images, and a function that runs it again."""
    from types import SimpleNamespace

    def pipe(prompt, **sampling):
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), "white") for _ in prompt])

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a dog to the left of a cat"}\n{"prompt": "a cat above a dog"}\n')
    config = EvaluateConfig(prompts=str(prompts), detector="stub", images=2, out=str(tmp_path / "out"))
    model = SimpleNamespace(pipe=pipe, sampling={}, fingerprints={}, steered=None)

    def again():
        evaluate(config, model=model, scorer=SCORER)

    again()
    return tmp_path / "out", again


def damaged(folder):
    return {finding.part: finding.problem for finding in verify(folder).problems}


def flip(path, place=-20):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def test_a_collection(tmp_path):
    folder = shutil.copytree(EDITION1 / "collection", tmp_path / "maps")
    result = verify(folder)
    assert (result.kind, result.problems) == ("collection", [])
    assert [finding.part for finding in result.findings] == [
        "manifest.json",
        "shards/train-0000",
        "shards/val-0000",
        "counts",
    ]
    flip(folder / "shards" / "val-0000.safetensors")
    (folder / "shards" / "train-0000.json").unlink()
    problems = damaged(folder)
    assert problems.keys() == {"shards/train-0000", "shards/val-0000"}
    assert all("run collect again" in problem for problem in problems.values())
    manifest = json.loads((folder / "manifest.json").read_text())
    storage.write_json(folder / "manifest.json", manifest | {"complete": False, "counts": {}})
    assert "run collect again with the same settings" in damaged(folder)["collection"]
    storage.write_json(folder / "manifest.json", manifest | {"levels": "many"})
    assert "levels" in damaged(folder)["manifest.json"]
    (folder / "manifest.json").unlink()
    assert "has no manifest.json" in damaged(folder)["manifest.json"]


def test_a_classifier_and_its_training(tmp_path):
    train(EDITION1 / "collection", tmp_path, TRAIN, progress=False)
    result = verify(tmp_path)
    assert (result.kind, result.problems) == ("classifier", [])
    assert {finding.part for finding in result.findings} >= {
        "relation_classifier.safetensors",
        "checkpoint.pt",
        "metrics.json",
    }
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("relation_classifier.safetensors", "checkpoint.pt"):
        flip(tmp_path / name, -100)
    (tmp_path / "metrics.json").write_text('{"best_epoch": -1}')
    problems = damaged(tmp_path)
    assert problems.keys() == {"relation_classifier.safetensors", "checkpoint.pt", "metrics.json"}
    assert "delete it, and training starts again" in problems["checkpoint.pt"]
    for name in problems:
        (tmp_path / name).unlink()
    train(EDITION1 / "collection", tmp_path, TRAIN, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole
    (tmp_path / "metrics.json").unlink()
    assert "run train again" in damaged(tmp_path)["metrics.json"]
    (tmp_path / "checkpoint.pt").unlink()  # as a classifier from the hub
    assert damaged(tmp_path) == {}
    storage.write_atomic(tmp_path / "checkpoint.pt", whole[tmp_path / "checkpoint.pt"])
    (tmp_path / "relation_classifier.safetensors").unlink()
    assert "run train again" in damaged(tmp_path)["relation_classifier.safetensors"]


def test_a_classifier_of_version_0_1(tmp_path):
    folder = shutil.copytree(EDITION1 / "classifier", tmp_path / "classifier")
    (folder / "checkpoint.pt").write_bytes(lzma.decompress((folder / "checkpoint.pt.xz").read_bytes()))
    assert damaged(folder) == {}


def test_an_evaluation(evaluation):
    out, again = evaluation
    result = verify(out)
    assert (result.kind, result.problems) == ("evaluation", [])
    assert "4 can be read" in {finding.note for finding in result.findings}
    samples = out / "images" / "00001" / "samples"
    whole = (samples / "0000.png").read_bytes()
    (samples / "0000.png").write_bytes(whole[:-20])
    (samples / "0001.png").unlink()
    summary = (out / "summary.json").read_text()
    changes = ({"accuracy": 0.125}, {"images": 40}, {"failures": []}, {"prompts": "two"}, {"passes_per_image": 7.0})
    for change in changes:
        storage.write_json(out / "summary.json", json.loads(summary) | change)
        problems = damaged(out)
        assert problems.keys() == {
            "images/00001/samples/0000.png",
            "images/00001/samples/0001.png",
            "summary.json",
        }
        assert all("run evaluate again with the same settings" in problem for problem in problems.values())
    again()
    assert damaged(out) == {}
    assert (samples / "0000.png").read_bytes() == whole
    metadata = out / "images" / "00000" / "metadata.jsonl"
    line = metadata.read_bytes()
    for content in (b"", line[:-9], None):
        metadata.unlink() if content is None else metadata.write_bytes(content)
        (out / "config.json").unlink()
        problems = damaged(out)
        assert problems.keys() == {"config.json", "images/00000/metadata.jsonl"}
        assert all("run evaluate again with the same settings" in problem for problem in problems.values())
        again()
        assert damaged(out) == {} and metadata.read_bytes() == line
    (out / "summary.json").unlink()
    assert "not finished" in damaged(out)["summary.json"]
    rows = (out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(rows.replace('"correct": true', '"correct": "yes"', 1))
    assert "line 1: correct" in damaged(out)["results.jsonl"]
    (out / "results.jsonl").unlink()
    assert "results.jsonl" in damaged(out)


def test_scores(evaluation, tmp_path):
    out, _ = evaluation
    folder = tmp_path / "score"
    score(ScoreConfig(str(out), against=str(shutil.copytree(out, tmp_path / "other")), out=str(folder)), scorer=SCORER)
    result = verify(folder)
    assert (result.kind, result.problems) == ("score", [])
    (folder / "detections.jsonl").write_text('{"key": 7}\n')
    assert "line 1: key" in damaged(folder)["detections.jsonl"]
    (folder / "detections.jsonl").unlink()
    assert (verify(folder).kind, damaged(folder).keys()) == ("score", {"detections.jsonl"})


def test_generated_images(tmp_path, with_wrong_values):
    image = png_bytes(Image.new("RGB", (8, 8)))
    for name in ("base-00-00.png", "steered-00-00.png", "compare.png"):
        (tmp_path / name).write_bytes(image)
    entry = {"index": 0, "base": "base-00-00.png", "base_verdict": None, "steered": "steered-00-00.png"}
    entry |= {"steered_verdict": None, "steering": None, "seconds": {"base": 0.5, "steered": 1.5}}
    prompt = {"prompt": "a dog above a cat", "relations": [["dog", "above", "cat"]], "images": [entry]}
    report = {"model": "sd:emoji", "seed": 0, "sampling": {}, "fingerprints": {"denoiser": "1"}, "prompts": [prompt]}
    storage.write_json(tmp_path / "report.json", report)
    assert (verify(tmp_path).kind, damaged(tmp_path)) == ("images", {})
    for label, wrong in with_wrong_values(report):
        if label.startswith((".sampling.", ".fingerprints={")) or label.endswith(("=None", "=7", "_verdict={}")):
            continue
        if f"seed={2**70}" in label or "_verdict={" in label or ".steering={" in label or ".seconds={}" in label:
            continue
        (tmp_path / "report.json").write_text(json.dumps(wrong))
        assert damaged(tmp_path), label
    storage.write_json(tmp_path / "report.json", report)
    (tmp_path / "base-00-00.png").write_bytes(image[:-9])
    assert "run generate again" in damaged(tmp_path)["base-00-00.png"]
    (tmp_path / "report.json").unlink()
    storage.write_json(tmp_path / "config.json", {"relations": []})
    assert "not finished" in damaged(tmp_path)["report.json"]


def test_exported_prompts(tmp_path):
    benchmarks.export({"unseen": benchmarks.prompts("unseen")}, tmp_path)
    assert (verify(tmp_path).kind, damaged(tmp_path)) == ("prompts", {})
    flip(tmp_path / "unseen.txt")
    assert "run export-prompts again" in damaged(tmp_path)["unseen.txt"]


def test_folders_without_anything_to_verify(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="nothing that can be verified"):
        verify(tmp_path)
    for path in (tmp_path / "notes.txt", tmp_path / "none"):
        with pytest.raises(DataError, match="is not a folder"):
            verify(path)


def test_every_spoilt_file_is_found(evaluation, tmp_path, spoil):
    out, _ = evaluation
    maps = shutil.copytree(EDITION1 / "collection", tmp_path / "maps")
    trained = tmp_path / "trained"
    train(maps, trained, replace(TRAIN, epochs=1), progress=False)
    storage.write_json(trained / "config.json", {})
    for folder, names in (
        (maps, ("manifest.json", "shards/train-0000.json", "shards/train-0000.jsonl")),
        (trained, ("relation_classifier.safetensors", "checkpoint.pt", "metrics.json", "config.json")),
        (out, ("config.json", "results.jsonl", "summary.json", "images/00000/samples/0000.png")),
    ):
        for name in names:
            for how in spoil(folder / name):
                if (name, how) != ("results.jsonl", "cut"):
                    assert damaged(folder), f"{name}: {how}"
            assert damaged(folder) == {}


def test_the_command_line(tmp_path, capsys):
    folder = shutil.copytree(EDITION1 / "collection", tmp_path / "maps")
    assert main(["verify", str(folder)]) == 0
    assert "ok       shards/val-0000: 1 images" in capsys.readouterr().out
    assert main(["verify", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["whole"] is True
    flip(folder / "shards" / "val-0000.jsonl")
    assert main(["verify", str(folder)]) == 2
    printed = capsys.readouterr()
    assert "damaged  shards/val-0000: " in printed.out
    assert printed.err.splitlines() == [f"error: {folder}: 1 of 3 parts are damaged or missing: shards/val-0000"]
    assert main(["verify", str(folder), "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "collection" and not result["whole"]
    assert [part["problem"] is None for part in result["parts"]] == [True, True, False]
    assert main(["verify", str(tmp_path / "none")]) == 2
