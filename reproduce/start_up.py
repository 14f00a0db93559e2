"""How long ``generate`` takes from the shell, beside importing torch and diffusers' pipelines alone.

    python reproduce/start_up.py --model flux:emoji --rounds 12 --threads 1
    python reproduce/start_up.py --other OLD/.venv/bin/python    # another checkout's environment, in the same rounds

Each round runs every command once, in an order that rotates, so that a change of the machine's load meets all of them.
The first round fills the caches and is not counted. The ratio is the median over the rounds, with a bootstrap interval
over them. On a machine that does other work, read the CPU time: it counts the work of all threads.

The commands: "import" (torch and the class of the model's pipeline), "generate" (one prompt, one base and one steered
image, maps and report), and "generate, unsteered" (``--no-steer``). Numbers go to --out, if it is given.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learn_to_steer import storage
from learn_to_steer.model_names import named_variant, package_folder

PROMPT = "a dog to the left of a teddy bear"
CLI = "import sys; from learn_to_steer.cli import main; sys.exit(main())"
IMPORT = "import"


@dataclass(frozen=True)
class Times:
    """Seconds of one run: by the clock, and of the CPU over all threads."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="flux:emoji", help="a model whose weights are in an installed package")
    parser.add_argument("--rounds", type=int, default=12, help="rounds that count")
    parser.add_argument("--threads", type=int, help="threads of every process; torch's choice if not given")
    parser.add_argument("--other", metavar="PYTHON", help="Python of another checkout's environment, to compare with")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    variant = named_variant(options.model)
    folder = Path(package_folder(variant.source if variant else options.model))
    pipeline = storage.read_json(folder / "model_index.json")["_class_name"]
    with tempfile.TemporaryDirectory() as out:
        words = ["-c", CLI, "generate", PROMPT, "--model", options.model, "--out", out]
        commands = {
            IMPORT: [sys.executable, "-c", f"import torch; from diffusers import {pipeline}"],
            "generate": [sys.executable, *words],
            "generate, unsteered": [sys.executable, *words, "--no-steer"],
        }
        if options.other:
            commands["generate, other"] = [options.other, *words]
        rounds = [_round(commands, number, options.threads) for number in range(options.rounds + 1)][1:]
    rows = {name: _summary(rounds, name) for name in commands}
    for name, row in rows.items():
        print(
            f"{name:20} CPU {row['cpu_seconds']:.2f} s, {_in_words(row['cpu_ratio'])}; "
            f"wall {row['wall_seconds']:.2f} s, {_in_words(row['wall_ratio'])}"
        )
    if options.out:
        facts = {"model": options.model, "rounds": options.rounds, "threads": options.threads or os.cpu_count()}
        storage.write_json(options.out, facts | {"python": platform.python_version(), "commands": rows})


def _round(commands: dict[str, list[str]], number: int, threads: int | None) -> dict[str, Times]:
    """Run every command once, beginning with another one each round."""
    names = list(commands)
    first = number % len(names)
    return {name: _run(commands[name], threads) for name in [*names[first:], *names[:first]]}


def _run(command: list[str], threads: int | None) -> Times:
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed: {ended.stderr[-1000:]}")
    return Times(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _summary(rounds: list[dict[str, Times]], name: str) -> dict[str, Any]:
    """The median seconds of a command, and its ratio to importing alone: median and 95 % interval over the rounds."""
    row: dict[str, Any] = {}
    for clock in ("cpu", "wall"):
        seconds = [getattr(one[name], clock) for one in rounds]
        ratios = np.array([getattr(one[name], clock) / getattr(one[IMPORT], clock) for one in rounds])
        draws = np.random.default_rng(0).choice(ratios, size=(10_000, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        row[f"{clock}_seconds"] = statistics.median(seconds)
        row[f"{clock}_ratio"] = [float(np.median(ratios)), float(low), float(high)]
    return row


def _in_words(ratio: list[float]) -> str:
    value, low, high = ratio
    return f"{value:.2f} [{low:.2f}, {high:.2f}] times importing"


if __name__ == "__main__":
    main()
