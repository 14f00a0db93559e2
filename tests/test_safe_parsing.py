"""YAML and JSON from anywhere end in a value or in one clear error, soon."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from learn_to_steer.errors import DataError
from learn_to_steer.safe_parsing import YamlMapping, parse_json
from learn_to_steer.storage import LARGEST_OF_PEOPLE, read_yaml

LETTERS = "abcdefghi"
NINES = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(LETTERS))
MERGES = "".join(f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n" for before, name in pairwise(LETTERS))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x, x, x, x, x, x, x, x]\n" + NINES, r"aliases .* stand for more than"),
        ("a: &a {x: 1}\n" + MERGES, r"aliases .* stand for more than"),
        ("a: &a [*a]\n", "line 1: a value contains itself"),
        ("a: &a {b: *a}\n", "line 1: a value contains itself"),
        ("a: " + "[" * 100_000, "nested more than"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than"),
        ("a: [" + "1, " * 20_000 + "]", "more than 10000 values"),
        ("b: 1\na: 2001-13-45\n", "line 2: a cannot be read: month must be"),
        ("a: " + "9" * 5000, "line 1: a cannot be read"),
        ("a: !!timestamp x\n", "line 1: a cannot be read"),
        ("a: !!int ''\n", "line 1: a cannot be read"),
        ("a: !!python/object/apply:os.system ['exit']\n", "line 1: a cannot be read: could not determine"),
        ("a: 1\nb: 2\na: 3\n", "line 3: a is given twice"),
        ("b: {c: 1, c: 2}\n", "c is given twice"),
        ("a: b: c\n", "line 1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML"),
        ("a: 1\nb: \0\n", "line 2: not valid YAML: a control character"),
        ("? [a, b]\n: 1\n", "line 1: a list or mapping as a key"),
        ("5\n", "must hold one 'option: value' per line"),
        ("- a\n", "must hold one 'option: value' per line"),
        ("#" * (LARGEST_OF_PEOPLE + 1), "it is larger than 1 MiB"),
        (b"a: 1\nb: \xff\n", "line 2: not UTF-8"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_hostile_yaml(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words) as refusal:
        read_yaml(path)
    assert "run.yaml" in str(refusal.value) and len(str(refusal.value)) < 500


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("a\0b"), Path("/dev/null")):
        with pytest.raises(DataError, match="cannot read"):
            read_yaml(path)


def test_yaml_keeps_what_it_means(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("common: &c {x: 1}\nb: {<<: *c, y: [2.5, yes, null]}\nc: *c\nü: 'ü'\n")
    read = read_yaml(path)
    assert read.values == {"common": {"x": 1}, "b": {"x": 1, "y": [2.5, True, None]}, "c": {"x": 1}, "ü": "ü"}
    assert read.lines == {"common": 1, "b": 2, "c": 3, "ü": 4}
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")  # as an editor on Windows saves it
    assert read_yaml(path) == YamlMapping({"a": 1, "b": 2}, {"a": 1, "b": 2})
    path.write_text("# nothing\n")
    assert read_yaml(path).values == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON, column 1"),
        ("[" * 100_000, "nested more than"),
        ("[" * 50 + "]" * 50, "nested more than"),
        ("9" * 5000, "an integer has too many digits"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ('{\n"a": 1,}', "line 2: not valid JSON, column"),
        (b'["\xff"]', "not UTF-8 text"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 text"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_json(text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"the header.*{words}.*; make it anew"):
        parse_json(text, "the header", "make it anew")


def test_json_keeps_what_it_means() -> None:
    value = {"a": [1, 2.5, None, True, {"b": "ü"}]}
    assert parse_json(json.dumps(value), "a text") == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode(), "a text with a byte order mark") == value
    assert parse_json("-Infinity", "a text", finite=False) == float("-inf")
