"""The campaign of kills: it sees what a kill leaves behind, and a small one passes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import campaign
import pytest
from campaign import Ended, Kill

EVENTS = {"before open": 4, "inside a write": 4, "after replace": 4, "before fsync": 4}


def test_differences_are_seen(tmp_path: Path) -> None:
    for name, row in (("straight", {"correct": True, "seconds": 1.5}), ("stopped", {"correct": True, "seconds": 2.5})):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        (folder / "results.jsonl").write_text(json.dumps(row) + "\n")
        (folder / "images" / "0.png").write_bytes(b"image")
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"

    def found() -> list[str]:
        return list(campaign.differences(campaign.content(stopped), campaign.content(straight)))

    assert found() == []  # times may differ
    (stopped / "results.jsonl").write_text((stopped / "results.jsonl").read_text() * 2)
    (stopped / ".summary.json.0.tmp").write_text("{")
    (stopped / "images" / "0.png").unlink()
    assert found() == [
        "left over: .summary.json.0.tmp",
        "left over: images/",
        "missing: images/0.png",
        "differs: results.jsonl",
    ]


@pytest.mark.parametrize(
    ("signal", "code", "err", "right"),
    [
        ("SIGKILL", -9, "training 1 of 4", True),
        ("SIGINT", 130, "training 1 of 4\nStopped. Run the same command again to go on.\n", True),
        ("SIGINT", 130, "training 1 of 4", False),
        ("SIGINT", 130, "Traceback (most recent call last):\nKeyboardInterrupt\nstopped", False),
        ("SIGINT", 1, "stopped", False),
        ("SIGTERM", 143, "stopped", True),
        ("SIGTERM", -15, "", True),
        ("SIGTERM", 2, "error: cannot write", False),
    ],
)
def test_how_a_stopped_run_must_end(signal: str, code: int, err: str, right: bool) -> None:
    assert (campaign.problem_of(Kill(signal, "before open", 1), Ended(code, err, 1.0)) == "") is right


def test_the_plan_has_all_kills_and_depends_on_the_seed_alone() -> None:
    plans = [campaign.plan(EVENTS, 5.0, 30, random.Random(seed)) for seed in (0, 0, 1)]
    kills = [kill for group in plans[0] for kill in group]
    assert len(kills) == 30 and max(map(len, plans[0])) > 1
    assert {kill.event for kill in kills} == {"", *EVENTS}
    assert {kill.signal for kill in kills} == {"SIGKILL", "SIGTERM", "SIGINT"}
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.slow
def test_a_small_campaign(tmp_path: Path) -> None:
    command = [sys.executable, campaign.__file__, "--kills", "6", "--cold", "0", "--verbs", "train", "generate"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "chaos.json").read_text())["kills"] >= 6
