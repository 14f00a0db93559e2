"""Atomic files, torn rows, and one-line errors for broken files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from learn_to_steer import storage
from learn_to_steer.errors import DataError


def test_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    storage.write_atomic(path, "old")
    storage.write_atomic(path, "größer".encode())
    assert path.read_text(encoding="utf-8") == "größer"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    storage.write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        storage.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"name": "Öl", "values": [1, 2.5, None]})
    assert storage.read_json(path) == {"name": "Öl", "values": [1, 2.5, None]}
    for bad in (float("nan"), {1, 2}):
        with pytest.raises(DataError, match=r"a\.json"):
            storage.write_json(path, bad)
    assert storage.read_json(path)["name"] == "Öl"


def test_broken_json_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "a": 1,\n "b" 2\n}')
    with pytest.raises(DataError, match=r"a\.json, line 3: .*column 6"):
        storage.read_json(path)
    with pytest.raises(DataError, match=r"none\.json"):
        storage.read_json(tmp_path / "none.json")


ROWS = [{"index": 1, "word": "Äpfel"}, {"index": 2, "word": "b"}]


@pytest.mark.parametrize("cut", range(1, len(json.dumps(ROWS[1]).encode())))
def test_a_row_torn_anywhere_is_dropped_and_the_next_append_is_clean(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    storage.append_jsonl(path, ROWS[0])
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(ROWS[1]).encode()[:cut])
    assert storage.read_jsonl(path) == ROWS[:1]
    storage.append_jsonl(path, ROWS[1])
    assert storage.read_jsonl(path) == ROWS
    assert path.read_bytes().count(b"\n") == 2


def test_a_whole_last_row_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    assert storage.read_jsonl(path) == ROWS[:1]
    storage.append_jsonl(path, ROWS[1])
    assert storage.read_jsonl(path) == ROWS


def test_a_row_torn_inside_a_letter_or_longer_than_a_block_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    storage.append_jsonl(path, ROWS[0])
    whole = path.read_bytes()
    for torn in ('{"word": "Ä'.encode()[:-1], b'{"word": "' + b"x" * 200_000):
        path.write_bytes(whole + torn)
        assert storage.read_jsonl(path) == ROWS[:1]
        storage.append_jsonl(path, ROWS[1])
        assert storage.read_jsonl(path) == ROWS


@pytest.mark.parametrize("line", ['{"a": ', "[1, 2]", "nonsense"])
def test_a_broken_row_that_is_not_the_torn_last_one_is_an_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n' + line + '\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3"):
        storage.read_jsonl(path)


def test_tensors_round_trip_with_their_header(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    tensors = {"maps": torch.arange(6.0).reshape(2, 3).t(), "labels": torch.tensor([1, 2])}
    storage.save_tensors(path, tensors, {"version": "1"})
    loaded, metadata = storage.load_tensors(path)
    assert metadata == {"version": "1"}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_foreign_or_missing_tensor_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    storage.save_tensors(path, {"maps": torch.zeros(100)})
    whole = path.read_bytes()
    for content in (whole[:-7], whole[:5], b"", b"PK\x03\x04 a zip archive, a torch pickle for instance"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"shard\.safetensors") as caught:
            storage.load_tensors(path)
        assert "\n" not in str(caught.value)
    for absent in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(DataError):
            storage.load_tensors(absent)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert storage.sha256(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError):
        storage.sha256(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("an-owner/name.v1_2", True),
        ("name", False),
        ("owner/", False),
        ("./owner/name", False),
        ("../name", False),
        ("~/name", False),
        ("/name", False),
        ("a/b/c", False),
        ("owner/a name", False),
    ],
)
def test_hub_ids_have_an_owner_and_a_name(name, expected):
    assert storage.is_hub_id(name) is expected
