"""Prompts of the user's own, and errors that name the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer.benchmarks import load_file
from learn_to_steer.errors import DataError, PromptError


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {"prompt": "a dog to the left of a cat"}


def test_relations_are_taken_as_given_or_parsed(tmp_path: Path) -> None:
    text = "a dog, and left of it a cat"
    given = {"prompt": text, "relations": [["cat", "to the left of", "dog"]], "note": "mine"}
    first, second = load_file(write(tmp_path, GOOD, given))
    assert [r.as_list() for r in first.relations] == [["dog", "left of", "cat"]]
    assert [r.as_list() for r in second.relations] == [["cat", "left of", "dog"]]
    assert second.relations[0].subject_span == (text.index("cat"), len(text))
    assert (first.index, second.index) == (0, 1)
    assert second.metadata["note"] == "mine"
    assert second.metadata["include"][1] == {"class": "cat", "count": 1, "position": ["left of", 0]}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"text": "a dog"}, DataError),
        ({"prompt": "a dog", "relations": 3}, DataError),
        ({"prompt": "a dog", "relations": [["dog", "left of"]]}, DataError),
        ({"prompt": "a dog and a cat"}, PromptError),
        ({"prompt": ""}, PromptError),
        ({"prompt": "a dog left of a cat", "relations": [["dog", "behind", "cat"]]}, PromptError),
        ({"prompt": "a dog left of a cat", "relations": [["dog", "left of", "horse"]]}, PromptError),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"prompts\.jsonl, row 2"):
        load_file(write(tmp_path, GOOD, row))


def test_missing_empty_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        load_file(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no prompts"):
        load_file(write(tmp_path))
    path = tmp_path / "broken.jsonl"
    for broken in ('{"prompt": }\n', '{"prompt": "a dog left of a c'):
        path.write_text(broken)
        with pytest.raises(DataError, match="line 1"):
            load_file(path)
