"""Reading annotation files entry by entry, and what is said of those that cannot be read."""

import json

import pytest

from learn_to_steer.errors import DataError
from learn_to_steer.sources import SkipLog, _annotations

VALUE = {"a": {"x": [1, 2.5, 'é\n"{}']}, "bé": [], "c": 12345, "d": {"deep": {"er": None}}}


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_are_those_of_the_whole_file(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(_annotations, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(VALUE, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert dict(_annotations.iterate_members(path, SkipLog())) == VALUE
    path.write_text(" {\n} ")
    assert list(_annotations.iterate_members(path, SkipLog())) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"a": {"x": 1', '{"a": }', "{1: 2}", '{"a": ["b', "no"])
def test_files_that_are_no_json_object_are_refused_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON") as caught:
        list(_annotations.iterate_members(path, SkipLog()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize("tail", [b"", b", ", b' "c": 3}', b', "c": {"x": 1', b", 3: 4}", b', "c": "\xff"}', b", \xc3"])
def test_members_before_a_broken_spot_stand(tmp_path, monkeypatch, tail, chunk):
    monkeypatch.setattr(_annotations, "CHUNK", chunk)
    path, skipped = tmp_path / "a.json", SkipLog()
    path.write_bytes(b'{"a": {"x": 1}, "b": 2' + tail)
    assert dict(_annotations.iterate_members(path, skipped)) == {"a": {"x": 1}, "b": 2}
    assert skipped.as_dict() == {
        "file: broken JSON, nothing after it was read": {"count": 1, "examples": ["a.json, after the entry 'b'"]}
    }


def test_other_unreadable_files(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff\xfe"}')
    for read in (lambda p: list(_annotations.iterate_members(p, SkipLog())), _annotations.read_json):
        with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
            read(path)
        with pytest.raises(DataError, match="cannot read"):
            read(tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not valid JSON"):
        _annotations.read_json(path)


def test_a_dropped_key_is_dropped_at_every_depth(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b": 1, "mask": [1, 2]}], "mask": 3}')
    assert _annotations.read_json(path, without="mask") == {"a": [{"b": 1}]}


def test_broken_lines_are_counted_and_named(tmp_path):
    path, skipped = tmp_path / "a.jsonl", SkipLog()
    path.write_bytes(b'{"a": 1}\n\n{"a": \n[2]\n\xff\n{"a": 3}')
    assert list(_annotations.iterate_lines(path, skipped)) == [(1, {"a": 1}), (6, {"a": 3})]
    assert skipped.as_dict() == {
        "line: not a JSON object": {"count": 1, "examples": ["line 4"]},
        "line: not valid JSON": {"count": 2, "examples": ["line 3", "line 5"]},
    }
    path.write_text("one\ntwo\n")
    with pytest.raises(DataError, match="no JSON object on any line"):
        list(_annotations.iterate_lines(path, skipped))


def test_the_log_keeps_every_count_and_the_first_examples():
    log = SkipLog()
    for number in range(5):
        log.add("pair: too small", number)
    log.add("object: too small", "x" * 500, count=7)
    assert log.as_dict() == {
        "object: too small": {"count": 7, "examples": ["x" * 120]},
        "pair: too small": {"count": 5, "examples": ["0", "1", "2"]},
    }
    assert list(log.as_dict()) == sorted(log.as_dict())
