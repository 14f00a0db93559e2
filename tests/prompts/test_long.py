"""Long descriptions, and prompts of many kinds: by hand, labelled before the parser was run on them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "reproduce" / "score_parser.py"
FILES = (Path(__file__).with_name("long.jsonl"), Path(__file__).with_name("second.jsonl"))


@pytest.fixture(scope="module")
def score_parser() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_parser", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_most_of_what_is_found_is_right(score_parser: ModuleType, path: Path) -> None:
    rows = score_parser.read_rows(path)
    scores = score_parser.scores(rows)
    assert len(rows) >= 100
    assert score_parser.MEASURES["precision"](scores) >= 0.95
    assert score_parser.MEASURES["recall"](scores) >= 0.85


def test_scoring(score_parser: ModuleType) -> None:
    row = {
        "prompt": "a tabby cat above a bin",
        "relations": [["tabby cat", "above", "bin"]],
        "optional": [["cat", "above", "lid"]],
        "also_named": [[["tabby cat", "above", "bin"], ["tabby cat"], ["bin", "box"]]],
    }
    found = [["cat", "above", "box"], ["cat", "above", "lid"], ["bin", "above", "cat"]]
    result, wrong, missing = score_parser.score(row, found)
    assert (result.exact, result.right, result.found, result.labelled) == (False, 1, 2, 1)
    assert wrong == [("bin", "above", "cat")]
    assert missing == []
    assert score_parser.score(row, [["cat", "below", "box"]])[0].right == 0
    assert score_parser.score({"prompt": "a", "relations": []}, [["cat", "below", "box"]])[0].false_alarm


def test_the_parts_of_a_file_are_kept_apart(score_parser: ModuleType) -> None:
    rows = [{"prompt": str(number), "relations": []} for number in range(150)]
    work, held_out = score_parser.part(rows, "work"), score_parser.part(rows, "held-out")
    assert (len(work), len(held_out)) == (100, 50)
    assert not {row["prompt"] for row in work} & {row["prompt"] for row in held_out}
    assert score_parser.part(rows[::-1], "work") == work
