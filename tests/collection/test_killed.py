"""A collection that is killed in the middle, for real, goes on and ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learn_to_steer.collection import verify

RUN = "import sys; from learn_to_steer.cli import main; sys.exit(main())"
PATIENCE = 120.0


@pytest.mark.slow  # three processes; test_collect.py resumes a collection in one
def test_killed_and_started_again(saved_sd: Path, tmp_path: Path) -> None:
    def collecting(out: Path) -> list[str]:
        verb = [
            "collect",
            "--model",
            str(saved_sd),
            "--limit",
            "60",
            "--batch",
            "4",
            "--quality",
            "100",
            "--out",
            str(out),
        ]
        return [sys.executable, "-c", RUN, *verb]

    killed, straight = tmp_path / "killed", tmp_path / "straight"
    process = subprocess.Popen(collecting(killed), stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while not list(killed.glob("shards/*.json")):
            assert process.poll() is None and time.monotonic() - began < PATIENCE
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("shards/*.json")}
    assert not json.loads((killed / "manifest.json").read_text())["complete"]
    for out in (killed, straight):
        subprocess.run(collecting(out), check=True, stdout=subprocess.DEVNULL)
    verify(killed)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    bytes_of = {
        out: {path.name: path.read_bytes() for path in (out / "shards").iterdir()} for out in (killed, straight)
    }
    assert bytes_of[killed] == bytes_of[straight]
