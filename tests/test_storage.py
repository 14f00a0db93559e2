"""Atomic files, torn rows, and one-line errors for broken files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from learn_to_steer import atomic_files, storage
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


def test_leftovers_of_killed_processes_are_removed_but_not_files_of_others(tmp_path: Path) -> None:
    own = [tmp_path / f".{name}.0123456789ab.tmp" for name in ("a.json", "b.safetensors", ".hidden")]
    foreign = [tmp_path / name for name in (".a.json.tmp", "a.json.0123456789ab.tmp", ".a.0123456789AB.tmp", "a.json")]
    for path in (*own, *foreign):
        path.write_text("{")
    assert all(storage.is_leftover(path.name) for path in own)
    assert not any(storage.is_leftover(path.name) for path in foreign)
    storage.write_atomic(tmp_path / "a.json", "{}")  # removes those of the file that it writes
    assert not own[0].exists() and own[1].exists()
    storage.remove_leftovers(tmp_path, tmp_path / "none", foreign[0])
    assert sorted(tmp_path.iterdir()) == sorted(foreign)


def test_the_temporary_file_of_a_living_process_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_files.replacing(path) as file:
        file.write(b"slow")
        storage.remove_leftovers(tmp_path)
        storage.write_atomic(path, "fast")
    assert path.read_text() == "slow"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_a_file_that_the_next_one_removes(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from learn_to_steer import atomic_files\n"
        "with atomic_files.replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os._exit(9)"
    )
    path = tmp_path / "a.txt"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
        (left,) = tmp_path.iterdir()
        assert storage.is_leftover(left.name)
    storage.write_atomic(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        storage.write_atomic(tmp_path / "a", b"")
        storage.write_json(tmp_path / "b", {})
        storage.append_jsonl(tmp_path / "c", {})
        storage.save_tensors(tmp_path / "d", {"x": torch.zeros(1)})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_equal_tensors_give_equal_bytes_that_any_reader_reads(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3, dtype=torch.int64), "a": torch.arange(5).half(), "c": torch.ones(1, 7).bool()}
    header = {f"key {n}": "value ä\n" * n for n in range(12)}
    written = []
    for n, names in enumerate((list(header), list(reversed(header)))):
        path = tmp_path / f"{n}.safetensors"
        storage.save_tensors(path, tensors, {name: header[name] for name in names}, digest=True)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    start = 8 + int.from_bytes(written[0][:8], "little")
    assert start % 8 == 0
    with safe_open(path, framework="pt") as file:
        assert {key: value for key, value in file.metadata().items() if key != "sha256"} == header
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in tensors)
    assert storage.load_tensors(path)[1] == header


def test_one_flipped_bit_in_a_file_with_a_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    storage.save_tensors(path, {"a": torch.arange(5).half()}, {"x": "1"}, digest=True)
    whole = path.read_bytes()
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if whole[place : place + 1] == b" ":
            continue  # the padding of the header
        try:
            _, header = storage.load_tensors(path)
        except DataError as error:
            assert "a.safetensors" in str(error)
        else:  # the key of the digest itself: the content is whole, and the key is shown as a foreign one
            assert header.keys() != {"x"}
    path.write_bytes(whole)
    storage.load_tensors(path)


def test_json_beyond_what_python_reads_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("[" * 100_000, "9" * 5000, '{"a": ' * 50_000):
        path.write_text(text)
        with pytest.raises(DataError, match=r"a\.json"):
            storage.read_json(path)
        path.write_text(text + "\n{}\n")
        with pytest.raises(DataError, match=r"a\.json, line 1"):
            storage.read_jsonl(path)
    with pytest.raises(DataError, match="cannot read"):
        storage.read_json("a\0b")
    with pytest.raises(DataError, match="cannot write"):
        storage.write_atomic("a\0b", "")


def test_half_a_surrogate_pair_is_written_as_an_escape(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "a.json", {"a": "x\ud800"})
    storage.append_jsonl(tmp_path / "a.jsonl", {"a": "x\ud800"})
    assert storage.read_json(tmp_path / "a.json") == {"a": "x\ud800"}
    assert storage.read_jsonl(tmp_path / "a.jsonl") == [{"a": "x\ud800"}]


def test_own_files_are_read_by_their_schema_and_a_pipe_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b": 1}]}')
    assert storage.read_json(path, dict[str, list[dict[str, int]]]) == {"a": [{"b": 1}]}
    for wrong, place in (
        ('{"a": [{"b": "1"}]}', r"a\[0\]\.b cannot be '1'"),
        ("[]", "the value"),
        ('{"a": NaN}', "not"),
    ):
        path.write_text(wrong)
        with pytest.raises(DataError, match=rf"a\.json: {place}.*; repair"):
            storage.read_json(path, dict[str, list[dict[str, int]]])
    path.write_text('{"a": 1}\n{"a": 1.5}\n')
    with pytest.raises(DataError, match=r"a\.json, line 2: a cannot be 1.5: .*integer"):
        storage.read_jsonl(path, dict[str, int])
    path.write_text('{"a": 1, "a": 2}\n')
    with pytest.raises(DataError, match=r"a\.json, line 1: .*'a' is given twice"):
        storage.read_jsonl(path)
    path.unlink()
    os.mkfifo(path)
    for read in (lambda: storage.read_json(path, dict), lambda: storage.sha256(path)):
        with pytest.raises(DataError, match="it is a named pipe"):
            read()


def test_files_of_windows_editors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert storage.read_jsonl(path, allow_torn=False) == [{"a": 1}, {"a": 2}]
    path.write_bytes('{"a": 1}\r\n'.encode("utf-16"))
    with pytest.raises(DataError, match="line 1: not UTF-8 text"):
        storage.read_jsonl(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space on the disk
    with pytest.raises(DataError, match="line 1: it is longer than 16 MiB"):
        storage.read_jsonl(path)
    with pytest.raises(DataError, match="it is larger than 256 MiB"):
        storage.read_json(path)
