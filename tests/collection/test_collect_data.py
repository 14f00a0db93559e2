"""Collection from pictures on the disk: what the manifest tells, and resuming."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.collection import CollectConfig, Manifest, MapDataset, benchmark_pairs, collect, verify
from learn_to_steer.errors import DataError

BOXES = {"left of": ([5, 25, 35, 55], [80, 25, 110, 55]), "above": ([40, 2, 70, 32], [40, 45, 70, 75])}


@pytest.fixture
def pictures(tmp_path):
    """Six good pictures of two objects, one with a plural, one that is missing and a broken line."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(7):
        Image.fromarray(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        first, second = BOXES[list(BOXES)[number % 2]]
        names = ("banana", "umbrellas" if number == 6 else "umbrella")
        objects = [{"name": name, "box": box} for name, box in zip(names, (first, second), strict=True)]
        rows.append(json.dumps({"image": f"{number}.png", "objects": objects}))
    rows += [rows[0].replace("0.png", "missing.png"), '{"image": ']
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))
    return tmp_path / "mine.jsonl"


@pytest.fixture
def config(pictures):
    return CollectConfig("tiny", "folder", str(pictures), limit=30, side=64, levels=(0.9,), quality=1e9, batch=3)


def test_collect_from_a_folder(tiny_sd, tmp_path, config, pictures):
    out = tmp_path / "out"
    manifest = collect(tiny_sd, out, config, progress=False)
    assert sum(manifest.counts["pictures"].values()) == 6
    assert verify(out) == manifest.counts
    assert Manifest.read(out).skipped == manifest.skipped
    skipped = {reason: case["count"] for reason, case in manifest.skipped.items() if not reason.startswith("class")}
    assert skipped == {
        "line: not valid JSON": 1,
        "picture: file is missing": 1,
        "object: several of its name in the picture": 1,
    }
    assert manifest.skipped["picture: file is missing"]["examples"] == ["line 8: missing.png"]
    assert manifest.settings["data"] == f"sha256:{storage.sha256(pictures)}"
    assert str(pictures) not in (out / "manifest.json").read_text()
    lines = [row for split in manifest.counts["rows"] for row in storage.read_jsonl(out / f"shards/{split}-0000.jsonl")]
    assert {line["relation"] for line in lines} == {"above", "below", "left of", "right of"}
    assert {line["subject"] for line in lines} == {"banana", "umbrella"}
    assert len(MapDataset.open(out, "train")) == manifest.counts["rows"]["train"]


def test_the_same_data_elsewhere_goes_on_and_changed_data_is_refused(tiny_sd, tmp_path, config, pictures):
    out, moved = tmp_path / "out", tmp_path / "moved.jsonl"
    first = collect(tiny_sd, out, config, progress=False)
    moved.write_bytes(pictures.read_bytes())
    assert collect(tiny_sd, out, replace(config, data=str(moved)), progress=False) == first
    (tmp_path / "0.png").rename(tmp_path / "hidden.png")
    with pytest.raises(DataError, match="other image files"):
        collect(tiny_sd, out, config, progress=False)
    (tmp_path / "hidden.png").rename(tmp_path / "0.png")
    pictures.write_text(pictures.read_text() + "\n")
    with pytest.raises(DataError, match="collected with data 'sha256:"):
        collect(tiny_sd, out, config, progress=False)


def test_data_without_a_usable_picture_is_refused_with_the_reasons(tiny_sd, tmp_path, config, pictures):
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of the images in .*file is missing: 8"):
        collect(tiny_sd, tmp_path / "out", config, progress=False)
    assert not (tmp_path / "out").exists()


def test_pairs_of_the_benchmarks_can_be_left_out(tiny_sd, tmp_path, config, pictures):
    pairs = benchmark_pairs()
    assert all(len(pair) == 2 for pair in pairs)
    # GenEval's own position prompts: "a photo of a dog right of a teddy bear".
    assert frozenset({"dog", "teddy bear"}) in pairs
    text = pictures.read_text().replace("banana", "dog").replace("umbrella", "teddy bear")
    pictures.write_text(text)
    with pytest.raises(DataError, match="used by a benchmark: 6"):
        collect(tiny_sd, tmp_path / "out", replace(config, exclude_benchmarks=True), progress=False)
