"""The way of a steered call through our files stays short, and the method can be read in one go."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "reproduce" / "count_files.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("count_files", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_steered_call_runs_through_few_files() -> None:
    count = script()
    files = count.files_of_a_steered_call()
    assert "steering/loop.py" in files and "steering/pipeline.py" in files
    assert len(files) <= count.MOST_FILES, files


def test_the_story_is_short() -> None:
    count = script()
    lines = count.story_lines()
    assert len(lines) <= count.MOST_STORY_FILES
    assert sum(lines.values()) <= count.MOST_STORY_LINES, lines
