"""Exported test sets: whole, hashed, and readable again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from learn_to_steer import benchmarks


def test_files_match_their_manifest_and_hold_everything(tmp_path: Path) -> None:
    names = ("geneval-position", "geneval-counting")
    manifest = benchmarks.export({name: benchmarks.prompts(name) for name in names}, tmp_path / "sets")
    assert json.loads((tmp_path / "sets" / "manifest.json").read_text()) == manifest
    assert {name: facts["prompts"] for name, facts in manifest.items()} == {
        "geneval-position": 100,
        "geneval-counting": 80,
    }
    for facts in manifest.values():
        for file, digest in facts["sha256"].items():
            assert hashlib.sha256((tmp_path / "sets" / file).read_bytes()).hexdigest() == digest
    lines = [json.loads(line) for line in (tmp_path / "sets" / "geneval-position.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "index": 353,
        "prompt": "a photo of a dog to the right of a teddy bear",
        "relations": [["dog", "right of", "teddy bear"]],
        "version": 2,
        "original": "a photo of a dog right of a teddy bear",
        "tag": "position",
        "include": [{"class": "teddy bear", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
    }
    texts = (tmp_path / "sets" / "geneval-position.txt").read_text().splitlines()
    assert texts == [line["prompt"] for line in lines]
    counting = json.loads((tmp_path / "sets" / "geneval-counting.jsonl").read_text().splitlines()[0])
    assert counting["exclude"] and counting["relations"] == [] and "original" not in counting


def test_what_is_written_can_be_evaluated(tmp_path: Path) -> None:
    made = benchmarks.prompts("multi-relation-5-3")
    benchmarks.export({"mine": made}, tmp_path)
    read = benchmarks.load_file(tmp_path / "mine.jsonl")
    assert [(p.prompt, p.relations) for p in read] == [(p.prompt, p.relations) for p in made]
    assert [[r.subject_span for r in p.relations] for p in read] == [
        [r.subject_span for r in p.relations] for p in made
    ]
