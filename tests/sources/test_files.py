"""Reading annotation files entry by entry, and what is said of those that cannot be read."""

import json

import pytest

from learn_to_steer.errors import DataError
from learn_to_steer.sources import Skipped, _files

VALUE = {"a": {"x": [1, 2.5, 'é\n"{}']}, "bé": [], "c": 12345, "d": {"deep": {"er": None}}}


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_are_those_of_the_whole_file(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(_files, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(VALUE, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert dict(_files.members(path, Skipped())) == VALUE
    path.write_text(" {\n} ")
    assert list(_files.members(path, Skipped())) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"a": {"x": 1', '{"a": }', "{1: 2}", '{"a": ["b', "no"])
def test_files_that_are_no_json_object_are_refused_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not the JSON that was expected") as caught:
        list(_files.members(path, Skipped()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize("tail", [b"", b", ", b' "c": 3}', b', "c": {"x": 1', b", 3: 4}", b', "c": "\xff"}', b", \xc3"])
def test_members_before_a_broken_spot_stand(tmp_path, monkeypatch, tail, chunk):
    monkeypatch.setattr(_files, "CHUNK", chunk)
    path, skipped = tmp_path / "a.json", Skipped()
    path.write_bytes(b'{"a": {"x": 1}, "b": 2' + tail)
    assert dict(_files.members(path, skipped)) == {"a": {"x": 1}, "b": 2}
    assert skipped.as_dict() == {
        "file: broken JSON, nothing after it was read": {"count": 1, "examples": ["a.json, after the entry 'b'"]}
    }


def test_other_unreadable_files(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff\xfe"}')
    for read in (lambda p: list(_files.members(p, Skipped())), _files.whole):
        with pytest.raises(DataError, match=r"a\.json is not the JSON"):
            read(path)
        with pytest.raises(DataError, match="cannot read"):
            read(tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not the JSON"):
        _files.whole(path)


def test_a_dropped_key_is_dropped_at_every_depth(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b": 1, "mask": [1, 2]}], "mask": 3}')
    assert _files.whole(path, without="mask") == {"a": [{"b": 1}]}


def test_broken_lines_are_counted_and_named(tmp_path):
    path, skipped = tmp_path / "a.jsonl", Skipped()
    path.write_bytes(b'{"a": 1}\n\n{"a": \n[2]\n\xff\n{"a": 3}')
    assert list(_files.lines(path, skipped)) == [(1, {"a": 1}), (6, {"a": 3})]
    assert skipped.as_dict() == {
        "line: not a JSON object": {"count": 1, "examples": ["line 4"]},
        "line: not valid JSON": {"count": 2, "examples": ["line 3", "line 5"]},
    }
    path.write_text("one\ntwo\n")
    with pytest.raises(DataError, match="no JSON object on any line"):
        list(_files.lines(path, skipped))
