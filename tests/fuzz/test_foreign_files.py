"""Checkpoints of the authors and folders to verify, damaged: an error of our own, or what was read is right."""

from __future__ import annotations

import io
import json
import lzma
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import as_json, byte_edits, edited_bytes, edited_tree, tree_edits

from learn_to_steer import classifier, verification
from learn_to_steer.cli import main
from learn_to_steer.errors import SteerError
from learn_to_steer.maps import Layout, MapLayer

HALF = settings(max_examples=settings().max_examples // 2)
FIXTURES = Path(__file__).parents[1] / "fixtures"
LAYOUT = Layout("sd", (MapLayer("a.attn2", 4, 0), MapLayer("b.attn2", 2, 1)))
OFFICIAL = FIXTURES / "golden" / "sd_classifier.pth"


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(OFFICIAL, weights_only=True)
    return loaded


def check_import(content: bytes, folder: Path) -> None:
    path, out = folder / "foreign.pth", folder / "out"
    path.write_bytes(content)
    try:
        classifier.import_official(path, LAYOUT, out)
    except SteerError:
        assert not out.exists(), "a refused checkpoint left files"
    else:
        assert classifier.load(out).layout.channels == LAYOUT.channels


def test_the_checkpoint_itself_is_imported(fresh: Callable[[], Path]) -> None:
    classifier.import_official(OFFICIAL, LAYOUT, fresh())


@HALF
@given(byte_edits)
@example([(0, 4, b"")])
@example([(0, 1, b"\x80")])
def test_official_checkpoints_with_other_bytes(fresh: Callable[[], Path], edits: list[Any]) -> None:
    check_import(edited_bytes(OFFICIAL.read_bytes(), edits), fresh())


PARTS = ("config", "training_config", "idx_to_rel_name", "rel_name_to_idx", "input_channels", "model_state_dict")


@HALF
@given(st.sampled_from(PARTS), tree_edits)
@example("config", [(0, 10**400)])
@example("idx_to_rel_name", [(0, "<delete>")])
def test_official_checkpoints_with_other_values(
    fresh: Callable[[], Path], official: dict[str, Any], part: str, edits: list[Any]
) -> None:
    changed = official | {part: edited_tree(official.get(part), edits)}
    buffer = io.BytesIO()
    try:
        torch.save(changed, buffer)
    except UnicodeEncodeError:  # half of a surrogate pair
        return
    check_import(buffer.getvalue(), fresh())


# Folders to verify


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of a collection, one of a training, one of exported prompts."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(FIXTURES / "edition1", root, dirs_exist_ok=True)
    packed = root / "classifier" / "checkpoint.pt.xz"
    packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    packed.unlink()
    assert main(["export-prompts", "--benchmark", "ood", "--out", str(root / "sets")]) == 0
    return {name: root / name for name in ("collection", "classifier", "sets")}


# By folder: its files, and whether a hash covers every byte.
HASHED = ("train-0000.jsonl", "train-0000.safetensors", "val-0000.jsonl", "val-0000.safetensors")
VERIFIED = [
    *(("collection", f"shards/{name}") for name in (*HASHED, "train-0000.json", "val-0000.json")),
    ("collection", "manifest.json"),
    *(("classifier", name) for name in ("checkpoint.pt", "metrics.json", "relation_classifier.safetensors")),
    ("sets", "manifest.json"),
]


def check_verified(source: Path, target: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
    whole = (target / name).read_bytes()
    (target / name).write_bytes(content)
    with suppress(SteerError):
        reported = [finding.part for finding in verification.verify(target).problems]
        if Path(name).name in HASHED and content != whole:
            assert any(Path(name).stem in part for part in reported), "a damaged byte was not reported"
    code = main(["verify", str(target)])
    shown = capsys.readouterr()
    assert code in (0, 2) and "Traceback" not in shown.err + shown.out
    assert {line for line in shown.err.splitlines() if not line.startswith("error: ")} == set()


@given(st.sampled_from(VERIFIED), byte_edits)
@example(("collection", "shards/train-0000.safetensors"), [(900, 1, b"\x99")])
@example(("classifier", "checkpoint.pt"), [(0, 4, b"")])
def test_folders_with_other_bytes_are_verified(
    folders: dict[str, Path],
    fresh: Callable[[], Path],
    capsys: pytest.CaptureFixture[str],
    place: tuple[str, str],
    edits: list[Any],
) -> None:
    folder, name = place
    content = edited_bytes((folders[folder] / name).read_bytes(), edits)
    check_verified(folders[folder], fresh(), name, content, capsys)


@given(st.sampled_from([place for place in VERIFIED if place[1].endswith(".json")]), tree_edits)
def test_folders_with_other_values_are_verified(
    folders: dict[str, Path],
    fresh: Callable[[], Path],
    capsys: pytest.CaptureFixture[str],
    place: tuple[str, str],
    edits: list[Any],
) -> None:
    folder, name = place
    value = json.loads((folders[folder] / name).read_bytes())
    check_verified(folders[folder], fresh(), name, as_json(edited_tree(value, edits)), capsys)
