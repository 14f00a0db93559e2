"""Damaged collections are refused: flipped bits, impossible values, wrong types; leftovers of a killed run are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from learn_to_steer import storage
from learn_to_steer.cli import main
from learn_to_steer.collection import CollectConfig, Manifest, MapDataset, collect, verify
from learn_to_steer.collection.shards import ShardRecord, paths, write_shard
from learn_to_steer.errors import DataError
from learn_to_steer.training import TrainConfig, train

EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1" / "collection"
CONFIG = CollectConfig("tiny", "emoji", limit=6, side=64, levels=(0.9, 0.5), quality=1e9, batch=3)
SMALL = TrainConfig(epochs=1, width=4, layers=1, heads=1, hidden=4, head_layers=1, head_heads=1, head_hidden=4)
# Fields whose content is the user's, or is only shown.
FREE = (".settings.", ".versions", ".skipped", ".dropped[0]")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(EDITION1, tmp_path / "maps")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".safetensors", ".jsonl"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_training_refuses_a_flipped_bit(folder, tmp_path, suffix, split):
    path = folder / "shards" / f"{split}-0000{suffix}"
    flip(path, -20)
    with pytest.raises(DataError, match=rf"{split}-0000{suffix} does not match its recorded hash; delete it and run"):
        train(folder, tmp_path / "out", SMALL, progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="does not match"):
        MapDataset.open(folder, split, in_memory=0)


def test_a_deleted_shard_is_collected_again(tiny_sd, tmp_path):
    folder = tmp_path / "maps"
    collect(tiny_sd, folder, CONFIG, progress=False)
    files = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
    damaged = folder / "shards" / "train-0000.safetensors"
    flip(damaged, -20)
    with pytest.raises(DataError, match="delete it and run collect again"):
        MapDataset.open(folder, "train")
    damaged.unlink()
    collect(tiny_sd, folder, CONFIG, progress=False)
    assert {path.name: path.read_bytes() for path in (folder / "shards").iterdir()} == files
    MapDataset.open(folder, "train")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("prompted", -1, "row 3: prompted is -1, not 0 to 4"),
        ("label", 5, "row 3: label is 5, not 0 to 4"),
        ("level", 1, "row 3: level is 1, not 0 to 0"),
        ("group", -7, "row 3: group is -7"),
        ("maps", float("nan"), "row 3: a map has values that are not finite"),
        ("maps", float("inf"), "row 3: a map has values that are not finite"),
    ],
)
def test_impossible_values_are_refused_with_their_row(folder, tmp_path, name, value, words):
    maps, lines, _ = paths(folder, "train-0000")
    tensors, _ = storage.load_tensors(maps)
    tensors[name][3] = value
    write_shard(folder, "train-0000", tensors, storage.read_jsonl(lines), [])  # with a hash that matches
    for check in (verify, lambda out: train(out, tmp_path / "out", SMALL, progress=False)):
        with pytest.raises(DataError, match=rf"train-0000\.safetensors, {words}"):
            check(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("prompted"), "holds no prompted"),
        (lambda tensors: tensors.update(label=tensors["label"].int()), "int32"),
        (lambda tensors: tensors.update(maps=tensors["maps"].float()), "float32"),
        (lambda tensors: tensors.update(maps=tensors["maps"][:, :1]), "of shape"),
        (lambda tensors: tensors.update(level=torch.zeros(3, dtype=torch.int64)), "of shape"),
    ],
)
def test_other_tensors_are_refused(folder, change, words):
    maps, lines, _ = paths(folder, "train-0000")
    tensors, _ = storage.load_tensors(maps)
    change(tensors)
    write_shard(folder, "train-0000", tensors, storage.read_jsonl(lines), [])
    with pytest.raises(DataError, match=words):
        MapDataset.open(folder, "train")


def test_a_manifest_with_a_field_of_another_type_is_refused(folder, with_wrong_values):
    path = folder / "manifest.json"
    whole = json.loads(path.read_text())
    whole["skipped"] = {"no object": {"count": 1, "examples": ["a"]}}
    accepted = []
    count = 0
    for label, wrong in with_wrong_values(whole):
        path.write_text(json.dumps(wrong))
        count += 1
        try:
            verify(folder)
            accepted.append(label)
        except DataError as error:
            assert "manifest" in str(error), label
    assert count > 400
    assert [label for label in accepted if not label.startswith(FREE)] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["above", "below", "left of", "right of", "near"]}, "classes: above, below"),
        ({"classes": ["above", "left of", "right of", "is"]}, "classes: above, below"),
        ({"classes": ["above", "below", "left of", "right of", "is", "is"]}, "classes: a value is listed twice"),
        ({"levels": [0.9, 1.5]}, r"levels\[1\] cannot be 1.5: input should be less than or equal to 1"),
        ({"shards": ["../../train-0000"]}, r"shards\[0\]"),
        ({"shards": ["train-0000", "train-0000"]}, "shards: a value is listed twice"),
        ({"counts": {}}, "counts: dropped, pictures, rows are expected"),
        ({"schema": 2}, "does not have schema 1"),
        ({"more": 1}, "more cannot be 1: unexpected"),
        ({"fingerprint": "0"}, "layout and fingerprint do not match"),
    ],
)
def test_a_manifest_with_impossible_values_is_refused(folder, change, words):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=words):
        Manifest.read(folder)


@pytest.mark.parametrize("change", [{"heads": -1}, {"heads": 0}, {"level": -1}, {"level": 2**31}, {"heads": 2**40}])
def test_a_layout_with_impossible_sizes_is_refused(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["layout"]["layers"][0] |= change
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json: layout: .*(heads|level).*collect again"):
        Manifest.read(folder)


def test_a_shard_record_with_a_field_of_another_type_is_refused(folder, with_wrong_values):
    path = folder / "shards" / "train-0000.json"
    whole = json.loads(path.read_text())
    whole["dropped"] = [{"picture": "a", "reason": "MAE", "values": ["0.2", "0.3"]}]
    for label, wrong in with_wrong_values(whole):
        path.write_text(json.dumps(wrong))
        if label.startswith(".dropped[0].values"):
            continue  # is only shown
        with pytest.raises(DataError, match=r"train-0000|shards hold"):
            verify(folder)


def test_spoilt_files_are_refused(folder, spoil):
    for name in ("manifest.json", "shards/val-0000.json", "shards/val-0000.jsonl", "shards/val-0000.safetensors"):
        for _ in spoil(folder / name):
            with pytest.raises(DataError):
                verify(folder)
            with pytest.raises(DataError):
                MapDataset.open(folder, "val")
    verify(folder)


def test_the_command_line_says_it_in_one_line(folder, tmp_path, capsys):
    (folder / "shards" / "train-0000.json").write_text('{"rows": "ten"}')
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "train-0000.json: rows cannot be 'ten': input should be a valid integer; delete it and run" in line


def test_leftovers_of_a_kill_before_the_first_manifest_do_not_stop_the_next_run(tiny_sd, tmp_path):
    folder = tmp_path / "maps"
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / ".train-0000.jsonl.0123456789ab.tmp").write_text("{")
    (folder / "shards").rename(tmp_path / "aside")
    (folder / ".manifest.json.0123456789ab.tmp").write_text("{")
    collect(tiny_sd, folder, CONFIG, progress=False)
    assert sorted(entry.name for entry in folder.iterdir()) == ["manifest.json", "shards"]
    (tmp_path / "aside" / ".train-0000.jsonl.0123456789ab.tmp").rename(folder / "shards" / ".x.0123456789ab.tmp")
    collect(tiny_sd, folder, CONFIG, progress=False)
    assert not [path for path in folder.rglob("*") if storage.is_leftover(path.name)]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / ".manifest.json.tmp").write_text("")
    with pytest.raises(DataError, match="not empty"):
        collect(tiny_sd, foreign, CONFIG, progress=False)


def test_a_record_is_read_as_it_was_written(folder):
    assert ShardRecord.read(folder, "val-0000").rows == 2
    assert Manifest.read(folder).counts["rows"] == {"train": 10, "val": 2}
