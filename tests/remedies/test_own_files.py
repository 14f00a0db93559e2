"""A damaged or foreign file is no hindrance any more once the remedy in the message is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from told import tells, told

from learn_to_steer import classifier, storage, verification
from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
from learn_to_steer.collection import CollectConfig, Manifest, MapDataset, collect
from learn_to_steer.collection.shards import check_shard, load_shard, paths, totals, verify, write_shard
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.model_configs import check_model
from learn_to_steer.training import TrainConfig, checkpoint, train
from learn_to_steer.training.trainer import TrainingRun

EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1" / "collection"
CONFIG = CollectConfig("tiny", "emoji", limit=6, side=64, levels=(0.9, 0.5), quality=1e9, batch=3)
SMALL = TrainConfig(epochs=2, width=4, layers=1, heads=1, hidden=4, head_layers=1, head_heads=1, head_hidden=4)
LAYOUT = Layout("sd", (MapLayer("a.attn2", 1, 0), MapLayer("b.attn2", 1, 1)), side=4)


def flip(path: Path, place: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


# Any file


def test_broken_lines_and_files(tmp_path: Path) -> None:
    rows, whole = tmp_path / "rows.jsonl", tmp_path / "whole.json"
    rows.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    for mended in ('{"a": 1}\n{"a": 2}\n{"a": 3}\n', '{"a": 1}\n{"a": 3}\n'):
        with told("repair or remove the line"):
            storage.read_jsonl(rows)
        broken = rows.read_text()
        rows.write_text(mended)
        assert storage.read_jsonl(rows)[-1] == {"a": 3}
        rows.write_text(broken)
    whole.write_text("{")
    with told("repair or remove the file"):
        storage.read_json(whole)
    whole.write_text("{}")
    assert storage.read_json(whole) == {}


def test_files_that_are_no_regular_ones(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with told("name a regular file"):
            storage.check_regular(tmp_path / name)
    (tmp_path / "file").write_text("text")
    storage.check_regular(tmp_path / "file")
    with told("is not a folder; name one"):
        storage.check_folder(tmp_path / "file" / "out")
    storage.check_folder(tmp_path / "folder" / "out")


def test_files_that_are_too_large(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"12345")
    small.write_bytes(b"123")
    with told("name another file"):
        storage.read_bytes(large, largest=4)
    assert storage.read_bytes(small, largest=4) == b"123"


def test_models_of_which_a_config_is_damaged(tiny_sd: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_sd.save_pretrained(folder)
    (folder / "model_index.json").write_text("{")
    with told("download or save the model again"):
        check_model(folder, "model")
    tiny_sd.save_pretrained(folder)
    check_model(folder, "model")


def test_damaged_tensors(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    for damage in (lambda: flip(path, -2), lambda: path.write_bytes(path.read_bytes()[:-3])):
        storage.save_tensors(path, {"a": torch.ones(8)}, digest=True)
        damage()
        with told("make or download it again"):
            storage.load_tensors(path)
    storage.save_tensors(path, {"a": torch.ones(8)}, digest=True)
    assert storage.load_tensors(path)[0]["a"].sum() == 8


# Classifiers


@pytest.fixture
def saved(tmp_path: Path) -> tuple[RelationClassifier, Path]:
    sizes = {"width": 8, "layers": 1, "hidden": 8, "head_layers": 1, "head_hidden": 8, "heads": 2, "head_heads": 2}
    config = ClassifierConfig(("left of", "right of"), 2, 1, levels=(0.9,), layout=LAYOUT.as_dict(), side=4, **sizes)
    model = RelationClassifier(config)
    classifier.save(model, tmp_path / "classifier")
    return model, tmp_path / "classifier"


def test_classifiers(saved: tuple[RelationClassifier, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    model, folder = saved
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **__: "url")
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda *_, **__: None)
    with torch.no_grad():
        weight = next(model.parameters())
        before = weight.clone()
        weight.fill_(float("nan"))
    classifier.save(model, folder)
    with told("download or train it again"):
        classifier.load(folder)
    with torch.no_grad():
        weight.copy_(before)
    classifier.save(model, folder)
    tensors, header = storage.load_tensors(folder / "relation_classifier.safetensors")
    storage.save_tensors(folder / "relation_classifier.safetensors", tensors, header | {"config": "{"})
    with told("make or download the classifier again"):
        classifier.load(folder)
    classifier.save(model, folder)
    classifier.load(folder)
    with told("give the folder of a classifier, as written by 'train'"):
        classifier.push_to_hub(folder / "relation_classifier.safetensors", "owner/name")  # type: ignore[arg-type]
    assert classifier.push_to_hub(folder, "owner/name") == "url"
    with told("give one such as apache-2.0, mit or cc-by-4.0"):
        classifier.push_to_hub(folder, "owner/name", license="Apache 2")
    for license in ("apache-2.0", "mit", "cc-by-4.0"):
        classifier.push_to_hub(folder, "owner/name", license=license)
        assert license in (folder / "README.md").read_text()
    whole = (folder / "README.md").read_text()
    (folder / "README.md").write_text("---\n[\n---\n")
    with told("correct or remove the file"):
        classifier.push_to_hub(folder, "owner/name", license="mit")
    (folder / "README.md").write_text(whole)
    classifier.push_to_hub(folder, "owner/name", license="mit")
    (folder / "README.md").unlink()
    classifier.push_to_hub(folder, "owner/name", license="mit")


# Collections


@pytest.fixture
def collection(tiny_sd: Any, tmp_path: Path) -> tuple[Callable[[], None], Path]:
    """A function that collects, with the same settings, and its folder; it has collected once."""
    folder = tmp_path / "maps"

    def collect_again() -> None:
        collect(tiny_sd, folder, CONFIG, progress=False)
        verify(folder)

    collect_again()
    return collect_again, folder


@pytest.mark.slow
def test_shards(collection: tuple[Callable[[], None], Path]) -> None:
    collect_again, folder = collection
    manifest = Manifest.read(folder)
    maps, lines, record = paths(folder, "train-0000")
    kept = storage.load_tensors(maps)[0]
    rows = storage.read_jsonl(lines)

    def write(change: Callable[[dict[str, Any]], Any], its_rows: Any = rows) -> None:
        tensors = {name: value.clone() for name, value in kept.items()}
        change(tensors)
        write_shard(folder, "train-0000", tensors, its_rows, [])

    damages: list[tuple[Callable[[], Any], Path]] = [
        (lambda: flip(maps), maps),
        (lambda: flip(lines), lines),
        (lambda: record.write_text("{}"), record),
        (lambda: write(lambda t: t.pop("label")), maps),
        (lambda: write(lambda t: t.update(label=t["label"][:1])), maps),
        (lambda: write(lambda t: t["label"].fill_(99)), maps),
        (lambda: write(lambda t: t["maps"].fill_(float("nan"))), maps),
        (lambda: write(lambda t: None, rows[::-1]), lines),
        (lambda: write(lambda t: None, [row | {"kind": "true"} for row in rows]), lines),
    ]
    for damage, damaged in damages:
        damage()
        with told("delete it and run collect again"):
            check_shard(folder, "train-0000", manifest)
        damaged.unlink()
        collect_again()


def test_unfinished_collections(collection: tuple[Callable[[], None], Path]) -> None:
    collect_again, folder = collection
    manifest = Manifest.read(folder)

    def refuses(read: Callable[[], Any], damage: Callable[[], Any]) -> None:
        damage()
        with told("run collect again with the same settings"):
            read()
        collect_again()
        read()

    def unfinished() -> None:
        replace(manifest, counts={}, complete=False).write(folder)

    def other_counts() -> None:
        replace(manifest, counts=manifest.counts | {"rows": {"train": 8, "val": 4}}).write(folder)

    with told("run collect again with the same settings to finish it"):
        unfinished()
        verify(folder)
    refuses(lambda: verify(folder), unfinished)
    refuses(lambda: MapDataset.open(folder, "train"), unfinished)
    refuses(lambda: verify(folder), other_counts)
    refuses(lambda: MapDataset.open(folder, "train"), other_counts)
    refuses(lambda: load_shard(folder, "train-0000", manifest), paths(folder, "train-0000")[0].unlink)
    held = MapDataset.open(folder, "train", in_memory=0)
    refuses(lambda: held.maps(range(2)), paths(folder, "train-0000")[0].unlink)


@pytest.mark.slow
def test_collections_of_another_kind(collection: tuple[Callable[[], None], Path], tiny_sd: Any, tmp_path: Path) -> None:
    _, folder = collection
    other = tmp_path / "other"

    def collect_into(target: Path, **changes: Any) -> None:
        collect(tiny_sd, target, replace(CONFIG, **changes), progress=False)

    with told("use another folder"):
        collect_into(folder, seed=1)
    collect_into(other, seed=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with told("name an empty or a new folder"):
        collect_into(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    collect_into(tmp_path / "empty")
    with told("so it is not a collection; make one with 'collect'"):
        MapDataset.open(tmp_path / "full", "train")
    MapDataset.open(tmp_path / "empty", "train")
    with told("collect more: about one in ten goes to val, one in ten to test"):
        MapDataset.open(folder, "test")
    collect_into(tmp_path / "more", limit=16)
    MapDataset.open(tmp_path / "more", "test")
    manifest = folder / "manifest.json"
    value = json.loads(manifest.read_bytes())
    for number, change in enumerate(({"schema": 9}, {"classes": ["dog"]}, {"fingerprint": "0"}, {"shards": 5})):
        storage.write_json(manifest, value | change)
        with told("collect again into another folder"):
            collect_into(folder)
        collect_into(tmp_path / f"again-{number}")
        verify(tmp_path / f"again-{number}")
    manifest.write_text("{")
    with told("collect again into another folder"):
        collect_into(folder)


def test_images_in_two_splits(tmp_path: Path) -> None:
    folder = shutil.copytree(EDITION1, tmp_path / "maps")
    manifest = Manifest.read(folder)
    tensors = storage.load_tensors(paths(folder, "train-0000")[0])[0]
    rows = storage.read_jsonl(paths(folder, "train-0000")[1])
    write_shard(folder, "val-0000", tensors, rows, [])
    replace(manifest, counts=totals(folder, manifest.shards)).write(folder)
    with told("collect again into another folder"):
        verify(folder)
    problems = " ".join(one.problem for one in verification.verify(folder).findings)
    assert tells(problems, "collect again into another folder")
    verify(EDITION1)


def test_disks_that_are_too_small(tiny_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    free = 4 * 5 * 2 * 14 * 16 * 16 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for number, (remedy, change) in enumerate(
        (("collect fewer images (--limit)", {"limit": 2}), ("or average over heads (--reduce", {"reduce": "mean"}))
    ):
        with told(remedy):
            collect(tiny_sd, tmp_path / f"full-{number}", CONFIG, progress=False)
        collect(tiny_sd, tmp_path / f"out-{number}", replace(CONFIG, **change), progress=False)


# Training


def test_trainings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(EDITION1, out, SMALL, progress=False)
    trained = (out / "relation_classifier.safetensors").read_bytes()
    state = checkpoint.read(out / "checkpoint.pt")
    for content in (b"torn", (out / "checkpoint.pt").read_bytes()[:-9]):
        (out / "checkpoint.pt").write_bytes(content)
        with told("delete it, and training starts again from the first epoch"):
            train(EDITION1, out, SMALL, progress=False)
        (out / "checkpoint.pt").unlink()
        train(EDITION1, out, SMALL, progress=False)
        assert (out / "relation_classifier.safetensors").read_bytes() == trained
    assert state["history"]
    data = shutil.copytree(EDITION1, tmp_path / "maps")
    with told("write the classifier to another folder"):
        train(data, data, SMALL, progress=False)
    with told("use another folder"):
        train(EDITION1, out, replace(SMALL, rate=0.5), progress=False)
    train(EDITION1, tmp_path / "another", replace(SMALL, rate=0.5), progress=False)


def test_a_training_that_diverges(tmp_path: Path) -> None:
    rows, held_out = (MapDataset.open(EDITION1, split) for split in ("train", "val"))
    run = TrainingRun(SMALL, Manifest.read(EDITION1), rows, held_out, tmp_path)
    with torch.no_grad():
        next(run.model.parameters()).fill_(float("inf"))
    with told("start again with a smaller rate than"):
        run.train_epoch(lambda _: None)
    train(EDITION1, tmp_path, replace(SMALL, rate=SMALL.rate / 10), progress=False)


def test_verified_folders(tmp_path: Path) -> None:
    for remedy in ("name one that collect, train, evaluate, score or generate wrote",):
        with told(remedy):
            verification.verify(tmp_path / "nowhere")
    with told("name a folder that collect, train, evaluate, score or generate wrote"):
        verification.verify(tmp_path)
    assert not verification.verify(EDITION1).problems
