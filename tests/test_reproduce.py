"""One row of every script in reproduce/ runs, in a copy of the folder, so that docs/ keeps its numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "reproduce"
QUICK = "flux:emoji-schnell"  # four steps, of which the first is steered
CLASSIFIER = "package:learn_to_steer_emoji/data/flux-emoji-schnell-classifier"
ONE = ["--limit", "1", "--images", "1"]
# Script -> its command lines, and the files that these leave.
COMMANDS: dict[str, tuple[list[list[str]], list[str]]] = {
    "ablations.py": (
        [
            [
                *("--ablation", "aggregation", "--row", "one mean", "--model", QUICK, "--source", "emoji-tidy"),
                *("--pictures", "20", "--epochs", "1", "--limit", "1"),
            ],
            ["--write"],
        ],
        ["docs/results/ablations/flux-emoji-schnell.json", "docs/ablations.md"],
    ),
    "bench_authors_way.py": (
        [["--model", "sd:emoji", "--prompts", "1", "--batch", "1", "--out", "out.json"]],
        ["out.json"],
    ),
    "bench_full_size.py": (
        [["--model", "sd:1.4", "--side", "64", *more] for more in (["--passes", "1"], ["--count"])],
        ["docs/results/full_size.json"],
    ),
    "build_prompt_words.py": ([["wordnet"]], ["src/learn_to_steer/prompts/wordnet_words.json"]),
    "build_wordnet.py": ([["wordnet"]], ["src/learn_to_steer/sources/wordnet.json"]),
    "compare_checkouts.py": (
        [["--old", str(ROOT), "--new", str(ROOT), "--model", QUICK, "--count", "1", "--case", "seen", "--out", "out"]],
        ["out/flux-emoji-schnell/seen/new/result/report.json"],
    ),
    "compass_like.py": ([["--steps", "1", "--batch", "2", *ONE, "--out", "out"]], []),
    "count_files.py": ([[]], []),
    "emoji_results.py": (
        [["--model", QUICK, "--only", "seen-steered", *ONE]],
        ["docs/results/flux-emoji-schnell.json"],
    ),
    "figures.py": (
        [["--model", QUICK, "--only", "orientations"]],
        ["docs/figures/flux-emoji-schnell-orientations.png"],
    ),
    "paper_tables.py": (
        [["--table", "2", "--model", QUICK, "--row", "learned", *ONE, "--write"]],
        ["docs/tables.md"],
    ),
    "full_size_table.py": ([["--model", "sd:1.4"]], ["docs/results/full_size_table.json", "docs/full_size.md"]),
    "load_server.py": (
        [["--requests", "20", "--clients", "4", "--wishes", "2", "--batch", "2", "--out", "out.json"]],
        ["out.json"],
    ),
    "passes_curve.py": ([["--model", QUICK, "--limit", "1"]], ["docs/results/passes/flux-emoji-schnell.json"]),
    "pipeline_table.py": ([[]], ["docs/results/pipelines.json", "docs/all_pipelines.md"]),
    "rrnet_like.py": ([["--steps", "1", "--batch", "2", *ONE, "--out", "out"]], []),
    "scaling.py": (  # without workers, which need Ray
        [
            [
                *("--workers", "0", "--verbs", "collect", "--small", "4", "--large", "8", "--rounds", "1"),
                *("--out", "out.json"),
            ]
        ],
        ["out.json"],
    ),
    "schedulers.py": (
        [["--schedulers", "EulerDiscreteScheduler", *ONE]],
        ["docs/results/schedulers/sd-emoji.json"],
    ),
    "score_parser.py": ([[str(ROOT / "tests" / "prompts" / "long.jsonl"), "--part", "held-out", "--errors"]], []),
    "steering_cost.py": (
        [["--model", QUICK, "--reference", CLASSIFIER, *ONE]],
        ["docs/results/cost/flux-emoji-schnell.json"],
    ),
    "start_up.py": ([["--model", QUICK, "--rounds", "1", "--out", "out.json"]], ["out.json"]),
    "train_loras.py": ([["--steps", "1", "--batch", "2", "--limit", "1", "--out", "out"]], []),
    "tries.py": (
        [["--model", QUICK, "--tries", "2", "--most", "2", *ONE]],
        ["docs/results/tries/flux-emoji-schnell-geneval-position-val.json"],
    ),
    "tune_steering.py": (
        [["--model", QUICK, "--rates", "0.02", "--passes", "1", "--limit", "1"]],
        ["docs/results/tuning/flux-emoji-schnell.json"],
    ),
}
# More than a few seconds each.
SLOW = (
    "ablations.py",
    "bench_authors_way.py",
    "bench_full_size.py",
    "compass_like.py",
    "compare_checkouts.py",
    "figures.py",
    "load_server.py",
    "paper_tables.py",
    "passes_curve.py",
    "pipeline_table.py",
    "rrnet_like.py",
    "scaling.py",
    "schedulers.py",
    "start_up.py",
    "steering_cost.py",
    "train_loras.py",
    "tries.py",
)
# Labels rows that paper_tables.py has drawn.
AFTER_TABLES = "labelled_rows.py"
# Runs with a stand-in for the authors' repository in test_authors_code.py.
WITH_A_CLONE = "authors_side_by_side.py"


def scripts() -> set[str]:
    return {path.name for path in FOLDER.glob("*.py") if "def main(" in path.read_text(encoding="utf-8")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with the scripts and what they read, and no results."""
    shutil.copytree(FOLDER, tmp_path / "reproduce", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "figures").mkdir()
    (tmp_path / "docs" / "results.md").write_text("<!-- tables -->\n<!-- end of tables -->\n")
    for package in ("sources", "prompts"):
        (tmp_path / "src" / "learn_to_steer" / package).mkdir(parents=True)
    words = tmp_path / "wordnet"
    words.mkdir()
    (words / "data.noun").write_text(
        "00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | what is\n"
        "00000002 05 n 01 dog 0 001 @ 00000001 n 0000 | an animal\n"
    )
    (words / "index.noun").write_text("dog n 1 1 @ 1 1 00000002\n")
    (words / "noun.exc").write_text("doggies dog\n")
    (words / "data.verb").write_text("00000003 38 v 01 run 0 000 01 + 01 00 | move\n")
    (words / "index.verb").write_text("run v 1 0 1 1 00000003\n")
    (words / "index.adj").write_text("grim a 1 0 1 1 00000004\n")
    (words / "verb.exc").write_text("ran run\n")
    (words / "cntlist.rev").write_text("run%2:38:00:: 1 9\ngrim%5:00:00:bad:00 1 2\ndog%1:05:00:: 1 42\n")
    return tmp_path


def run(place: Path, script: str, arguments: list[str]) -> None:
    command = [sys.executable, str(place / "reproduce" / script), *arguments]
    ended = subprocess.run(
        command, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def check(place: Path, script: str, commands: list[list[str]], files: list[str]) -> None:
    for arguments in commands:
        run(place, script, arguments)
    assert [name for name in files if not (place / name).is_file()] == []


def test_every_script_is_run() -> None:
    assert scripts() == {*COMMANDS, AFTER_TABLES, WITH_A_CLONE}


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in COMMANDS]
)
def test_one_row(place: Path, script: str) -> None:
    check(place, script, *COMMANDS[script])


@pytest.mark.slow
def test_a_row_to_label(place: Path) -> None:
    run(place, "paper_tables.py", ["--table", "10", "--model", QUICK, "--row", "geneval-position-learned", *ONE])
    rows = sorted(path.stem for path in (place / "docs" / "results" / "tables").rglob("*.jsonl"))
    run(place, AFTER_TABLES, ["--model", QUICK, "--row", rows[0]])
    assert list((place / "docs" / "results" / "labelled").rglob("*.webp"))
