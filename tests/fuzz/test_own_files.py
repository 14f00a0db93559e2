"""Files of our own, damaged: classifiers, collections, checkpoints, evaluations and labels.

Each is refused with an error of our own, or read as it stands: a damage that a hash covers is never read over.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import as_json, byte_edits, edited_bytes, edited_tree, tree_edits
from PIL import Image

from learn_to_steer import classifier, verification
from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
from learn_to_steer.collection import Manifest, MapDataset, verify
from learn_to_steer.collection.shards import totals, write_shard
from learn_to_steer.errors import SteerError
from learn_to_steer.evaluation import EvaluateConfig, ScoreConfig, Scorer, evaluate, score
from learn_to_steer.geometry import BASIC, NEUTRAL, Detection
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.report.audit import agreement, audit_page
from learn_to_steer.training import TrainConfig, train

HALF = settings(max_examples=settings().max_examples // 2)
CLASSES = (*BASIC, NEUTRAL)
LAYOUT = Layout("sd", (MapLayer("a.attn2", 1, 0), MapLayer("b.attn2", 1, 1)), side=4)
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "hidden": 8, "head_layers": 1, "head_hidden": 8}
HUGE = (2**31, 2**63, 2**64, 10**400, -1, 0, 0.5, float("nan"), float("inf"), "8", None, [8], {"a": 8}, True)


# Classifiers


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = SMALL | {"heads": 2, "query_heads": 2, "head_heads": 2, "fc_widths": (8, 8), "time_width": 4}
    layout = LAYOUT.as_dict()
    config = ClassifierConfig(CLASSES, LAYOUT.channels, 2, levels=(0.9, 0.6), side=4, layout=layout, **sizes)
    return classifier.save(RelationClassifier(config), tmp_path_factory.mktemp("classifier"), {"accuracy": 1.0})


def parts_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and its tensors."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: bytes, tensors: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + tensors


def check_classifier(content: bytes, folder: Path) -> None:
    path = folder / classifier_name()
    path.write_bytes(content)
    with suppress(SteerError):
        loaded = classifier.load(folder)
        stored = json.loads(parts_of(content)[0]["__metadata__"]["config"])
        assert json.loads(json.dumps(asdict(loaded.config))) == json.loads(json.dumps(asdict(loaded.config) | stored))
        maps = torch.rand(1, 2, min(loaded.config.channels, 64), loaded.config.side, loaded.config.side)
        assert loaded(maps, torch.zeros(1, dtype=torch.long)).shape == (1, len(loaded.config.classes))
        levels = loaded.config.levels or (0.5,)
        assert all(0 <= loaded.config.row(level, 0, 10) < loaded.config.times for level in levels)


def classifier_name() -> str:
    return "relation_classifier.safetensors"


FIELDS = (
    "channels", "times", "side", "width", "layers", "heads", "hidden", "query_heads", "head_layers", "head_heads",
    "head_hidden", "time_width", "fc_widths", "dropout", "inject", "extractor", "levels", "steps", "classes",
    "layout",
)  # fmt: skip


@given(st.sampled_from(FIELDS), st.sampled_from(HUGE))
@example("layers", 2**31)
@example("head_layers", 2**31)
@example("width", 0)
@example("channels", 2**64)
@example("heads", 0.5)
@example("dropout", float("nan"))
def test_classifiers_with_one_other_setting(
    classifier_file: Path, fresh: Callable[[], Path], name: str, value: Any
) -> None:
    header, tensors = parts_of(classifier_file.read_bytes())
    config = json.loads(header["__metadata__"]["config"])
    header["__metadata__"]["config"] = json.dumps(config | {name: value})
    check_classifier(with_header(as_json(header), tensors), fresh())


@given(tree_edits)
def test_classifiers_with_another_config(classifier_file: Path, fresh: Callable[[], Path], edits: list[Any]) -> None:
    header, tensors = parts_of(classifier_file.read_bytes())
    config = edited_tree(json.loads(header["__metadata__"]["config"]), edits)
    header["__metadata__"]["config"] = json.dumps(config)
    check_classifier(with_header(as_json(header), tensors), fresh())


@given(tree_edits)
def test_classifiers_with_another_header(classifier_file: Path, fresh: Callable[[], Path], edits: list[Any]) -> None:
    header, tensors = parts_of(classifier_file.read_bytes())
    check_classifier(with_header(as_json(edited_tree(header, edits)), tensors), fresh())


@given(byte_edits)
@example([(0, 1, b"\xff")])
@example([(7, 1, b"\x7f")])
@example([(0, 4, b"")])
def test_classifiers_with_other_bytes(classifier_file: Path, fresh: Callable[[], Path], edits: list[Any]) -> None:
    check_classifier(edited_bytes(classifier_file.read_bytes(), edits), fresh())


# Collections and training


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished collection of 12 images."""
    folder = tmp_path_factory.mktemp("maps")
    generator = torch.Generator().manual_seed(0)
    shards = {"train-0000": range(4), "train-0001": range(4, 8), "val-0000": range(8, 10), "test-0000": range(10, 12)}
    for shard, groups in shards.items():
        rows = [
            {"group": group, "kind": kind, "label": group % 5, "prompted": (group + n) % 5, "level": level}
            for group in groups
            for n, kind in enumerate(("true", "wrong"))
            for level in (0, 1)
        ]
        tensors = {key: torch.tensor([row[key] for row in rows]) for key in ("label", "prompted", "level", "group")}
        drawn = torch.rand(len(rows), 2, 2, 4, 4, generator=generator)
        write_shard(folder, shard, tensors | {"maps": (drawn / 16).half()}, rows, [])
    Manifest(
        settings={"seed": 0, "model": "sd:emoji"},
        weights="0",
        layout=LAYOUT.as_dict(),
        fingerprint=LAYOUT.fingerprint,
        classes=list(CLASSES),
        levels=[0.9, 0.6],
        source_note="synthetic",
        shards=list(shards),
        versions={},
        counts=totals(folder, list(shards)),
        complete=True,
    ).write(folder)
    return folder


def damaged(source: Path, target: Path, name: str, content: bytes) -> Path:
    """A copy of a folder in which one file has other content."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    (target / name).write_bytes(content)
    return target


def read_collection(folder: Path) -> Any:
    """What a training takes from a collection."""
    opened = [MapDataset.open(folder, split) for split in ("train", "val", "test")]
    numbers = [[getattr(one, key).tolist() for key in ("label", "prompted", "level")] for one in opened]
    return numbers, [one.maps(range(len(one))).tolist() for one in opened]


def check_collection(maps: Path, folder: Path, name: str, content: bytes, counts: Any) -> None:
    changed = damaged(maps, folder, name, content)
    with suppress(SteerError):
        assert verify(changed) == counts
        assert read_collection(changed) == read_collection(maps)
    with suppress(SteerError):
        read_collection(changed)


@given(tree_edits)
@example([(0, 5)])
def test_manifests_with_other_values(maps: Path, fresh: Callable[[], Path], edits: list[Any]) -> None:
    manifest = json.loads((maps / "manifest.json").read_bytes())
    check_collection(maps, fresh(), "manifest.json", as_json(edited_tree(manifest, edits)), manifest["counts"])


RECORDS = ("shards/train-0000.json", "shards/val-0000.json")


@given(st.sampled_from(RECORDS), tree_edits)
@example(RECORDS[0], [(0, "many")])
@example(RECORDS[0], [(2, 5)])
def test_shard_records_with_other_values(maps: Path, fresh: Callable[[], Path], name: str, edits: list[Any]) -> None:
    record = edited_tree(json.loads((maps / name).read_bytes()), edits)
    counts = json.loads((maps / "manifest.json").read_bytes())["counts"]
    check_collection(maps, fresh(), name, as_json(record), counts)


@settings(max_examples=2 * settings().max_examples)
@given(
    st.sampled_from(("manifest.json", *RECORDS, "shards/train-0001.jsonl", "shards/train-0001.safetensors")),
    byte_edits,
)
def test_collections_with_other_bytes(maps: Path, fresh: Callable[[], Path], name: str, edits: list[Any]) -> None:
    content = edited_bytes((maps / name).read_bytes(), edits)
    counts = json.loads((maps / "manifest.json").read_bytes())["counts"]
    check_collection(maps, fresh(), name, content, counts)


TRAINING = TrainConfig(epochs=2, rate=1e-3, batch=8, dropout=0.0, heads=2, head_heads=2, **SMALL)


@HALF
@given(st.sampled_from(("shards/train-0000.safetensors", *RECORDS)), byte_edits)
@example("shards/train-0000.safetensors", [(900, 1, b"\x99")])
def test_training_reads_what_was_collected(
    maps: Path, fresh: Callable[[], Path], name: str, edits: list[tuple[int, int, bytes]]
) -> None:
    """A file that its recorded hash does not fit is not trained on."""
    folder = fresh()
    content = (maps / name).read_bytes()
    changed = edited_bytes(content, edits)
    data = damaged(maps, folder / "maps", name, changed)
    with suppress(SteerError):
        train(data, folder / "out", TRAINING, progress=False)
        assert name.endswith(".json") or changed == content


@pytest.fixture(scope="module")
def trained(maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training, with the checkpoint of its last epoch."""
    folder = tmp_path_factory.mktemp("trained")
    train(maps, folder, TRAINING, progress=False)
    return folder


def check_checkpoint(maps: Path, trained: Path, folder: Path, content: bytes) -> None:
    changed = damaged(trained, folder, "checkpoint.pt", content)
    (changed / "relation_classifier.safetensors").unlink()
    with suppress(SteerError):
        train(maps, changed, TRAINING, progress=False)
        ours, theirs = (classifier.load(one).state_dict() for one in (changed, trained))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), "a damaged checkpoint was used"


@HALF
@given(byte_edits)
@example([(3000, 1, b"\x41")])
@example([(0, 4, b"")])
def test_checkpoints_with_other_bytes(
    maps: Path, trained: Path, fresh: Callable[[], Path], edits: list[tuple[int, int, bytes]]
) -> None:
    content = edited_bytes((trained / "checkpoint.pt").read_bytes(), edits)
    check_checkpoint(maps, trained, fresh(), content)


@HALF
@given(st.sampled_from(("identity", "history", "model", "best", "optimizer", "plateau")), tree_edits)
@example("history", [(0, 5)])
@example("identity", [(0, None)])
def test_checkpoints_with_other_values(
    maps: Path, trained: Path, fresh: Callable[[], Path], key: str, edits: list[Any]
) -> None:
    import io

    state = torch.load(trained / "checkpoint.pt", weights_only=True)
    part = state.get(key)
    state[key] = edited_tree(dict(part) if isinstance(part, dict) else part, edits)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with suppress(SteerError):
        train(maps, damaged(trained, fresh(), "checkpoint.pt", buffer.getvalue()), TRAINING, progress=False)


# Evaluations and labels

PROMPTS = ["a dog to the left of a cat", "a cat to the left of a dog"]


class Seer:
    """A detector that sees a dog to the left of a cat in every image."""

    name = "seer"
    counting = None
    tells_colors = False
    identity = {"name": "seer"}  # noqa: RUF012

    def detect(self, images: Any, queries: Any = None) -> list[list[Detection]]:
        return [[Detection("dog", 0.9, (0, 2, 2, 4)), Detection("cat", 0.8, (4, 2, 6, 4))] for _ in images]


def white(prompt: list[str], **sampling: Any) -> Any:
    return SimpleNamespace(images=[Image.new("RGB", (8, 8), "white") for _ in prompt])


MODEL: Any = SimpleNamespace(pipe=white, sampling={}, fingerprints={}, steered=None)
SCORER = Scorer(Seer(), {"dog": "dog", "cat": "cat"})


def evaluation_of(folder: Path) -> EvaluateConfig:
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return EvaluateConfig(objective="none", prompts=str(prompts), images=2, out=str(folder / "out"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate(evaluation_of(folder), model=MODEL, scorer=SCORER)
    return folder


def check_evaluation(evaluated: Path, folder: Path, name: str, content: bytes) -> None:
    """The verbs that read an evaluation; one that goes on gives the rows of one that was not stopped."""
    damaged(evaluated, folder, f"out/{name}", content)
    for read in (
        lambda: score(ScoreConfig(str(folder / "out"), detector="seer", out=str(folder / "again")), scorer=SCORER),
        lambda: audit_page(folder / "out"),
        lambda: agreement(folder / "out", {"00000-0000": "right"}),
        lambda: verification.verify(folder / "out"),
        lambda: evaluate(evaluation_of(folder), model=MODEL, scorer=SCORER),
    ):
        with suppress(SteerError):
            read()


FILES = ("results.jsonl", "config.json", "summary.json", "images/00000/metadata.jsonl")


@HALF
@given(st.integers(0, 3), tree_edits)
@example(0, [(0, "first")])
@example(0, [(0, None)])
@example(1, [(5, 7)])
def test_results_with_other_values(evaluated: Path, fresh: Callable[[], Path], row: int, edits: list[Any]) -> None:
    lines = (evaluated / "out" / "results.jsonl").read_bytes().splitlines()
    lines[row] = as_json(edited_tree(json.loads(lines[row]), edits))
    check_evaluation(evaluated, fresh(), "results.jsonl", b"\n".join(lines) + b"\n")


@HALF
@given(st.sampled_from(("config.json", "summary.json")), tree_edits)
def test_settings_of_an_evaluation_with_other_values(
    evaluated: Path, fresh: Callable[[], Path], name: str, edits: list[Any]
) -> None:
    value = edited_tree(json.loads((evaluated / "out" / name).read_bytes()), edits)
    check_evaluation(evaluated, fresh(), name, as_json(value))


@HALF
@given(st.sampled_from(FILES), byte_edits)
def test_evaluations_with_other_bytes(evaluated: Path, fresh: Callable[[], Path], name: str, edits: list[Any]) -> None:
    content = edited_bytes((evaluated / "out" / name).read_bytes(), edits)
    check_evaluation(evaluated, fresh(), name, content)


@HALF
@given(tree_edits)
def test_detections_with_other_values(evaluated: Path, fresh: Callable[[], Path], edits: list[Any]) -> None:
    folder = fresh()
    shutil.copytree(evaluated, folder, dirs_exist_ok=True)
    config = ScoreConfig(str(folder / "out"), detector="seer", out=str(folder / "again"))
    score(config, scorer=SCORER)
    cache = folder / "again" / "detections.jsonl"
    lines = cache.read_bytes().splitlines()
    lines[0] = as_json(edited_tree(json.loads(lines[0]), edits))
    cache.write_bytes(b"\n".join(lines) + b"\n")
    with suppress(SteerError):
        score(config, scorer=SCORER)


LABELS = {"00000-0000": "right", "00000-0001": "wrong", "00001-0000": "missing"}


@given(tree_edits)
@example([(0, [])])
@example([(0, {})])
def test_labels_with_other_values(evaluated: Path, edits: list[Any]) -> None:
    with suppress(SteerError):
        found = agreement(evaluated / "out", edited_tree(LABELS, edits))
        assert 0 < found["pictures"] <= 4 and 0 <= found["manual"] <= 1
