"""What Ray's workers gain and cost: collection and generation with workers, beside the plain process.

    python reproduce/scaling.py --rounds 3 --out docs/results/scaling.json
    python reproduce/scaling.py --verbs collect --workers 0 1 2 --large 512

Every command runs twice in a round, with a small and with a large number of images. The difference of the two times is
that of the images alone; what is left of the small run is the start. So a start that takes long, of Ray or of Python,
does not count as work, nor the other way around. Every process has one thread. "0 workers" is the plain process. The
commands of a round run one after another, in an order that rotates; the speed-up is the median over the rounds.

Memory is the largest of any worker, as the system counts it (VmHWM), beside that of the plain process. On a machine
that does other work the numbers say nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from learn_to_steer import storage

CLI = "import sys; from learn_to_steer.cli import main; sys.exit(main())"
PLAIN = 0  # workers
IMAGES = 4  # of a prompt, and of a batch: so many make a shard of evaluate


@dataclass(frozen=True)
class Run:
    """Seconds by the clock, and bytes of the largest process that does the work."""

    seconds: float
    memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--verbs", nargs="+", choices=["collect", "evaluate"], default=["collect", "evaluate"])
    parser.add_argument("--workers", nargs="+", type=int, default=[PLAIN, 1, 2], help="0: the plain process")
    parser.add_argument("--small", type=int, default=64, help="images of a small run")
    parser.add_argument("--large", type=int, default=512, help="images of a large run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if not 1 <= options.small < options.large or options.rounds < 1:
        parser.error("--small must be less than --large, and --rounds at least 1")
    facts = {name: getattr(options, name) for name in ("model", "small", "large", "rounds")}
    table = {verb: _measure(verb, options) for verb in options.verbs}
    for verb, rows in table.items():
        for row in rows:
            print(f"{verb:9} {row['workers']} workers: {_in_words(row)}")
    if options.out:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        storage.write_json(options.out, facts | machine | {"verbs": table})


def _measure(verb: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a verb, one for each number of workers."""
    rounds = []
    for number in range(options.rounds):
        first = number % len(options.workers)
        order = [*options.workers[first:], *options.workers[:first]]
        rounds.append({count: [_run(verb, options.model, count, size) for size in _sizes(options)] for count in order})
    rows = []
    for count in options.workers:
        pairs, more = _of(rounds, count), options.large - options.small
        each = [(large.seconds - small.seconds) / more for small, large in pairs]
        starts = [small.seconds - options.small * one for (small, _), one in zip(pairs, each, strict=True)]
        row: dict[str, Any] = {
            "workers": count,
            "seconds_per_image": statistics.median(each),
            "start_seconds": statistics.median(starts),
            "memory": max(run.memory for pair in pairs for run in pair),
            "runs": [[asdict(run) for run in pair] for pair in pairs],
        }
        rows.append(row)
    plain = next((row for row in rows if row["workers"] == PLAIN), None)
    for row in rows if plain else ():
        row["speed_up"] = plain["seconds_per_image"] / row["seconds_per_image"]  # type: ignore[index]
        row["memory_ratio"] = row["memory"] / plain["memory"]  # type: ignore[index]
    return rows


def _of(rounds: list[dict[int, list[Run]]], count: int) -> list[list[Run]]:
    return [one[count] for one in rounds]


def _sizes(options: argparse.Namespace) -> tuple[int, int]:
    return options.small, options.large


def _run(verb: str, model: str, workers: int, images: int) -> Run:
    """Run a verb on so many images, and watch its processes."""
    with tempfile.TemporaryDirectory() as out:
        words = {
            "collect": ["--limit", str(images), "--levels", "0.9,0.7", "--quality", "1e9"],
            "evaluate": [
                *("--benchmark", "unseen", "--limit", str(max(1, images // IMAGES)), "--images", str(IMAGES)),
                *("--batch", str(IMAGES)),
            ],
        }[verb]
        command = [sys.executable, "-c", CLI, verb, "--model", model, "--device", "cpu", *words, "--out", f"{out}/out"]
        command += ["--workers", str(workers)] if workers else []
        with open(f"{out}/err", "wb") as err:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=err
            )
            memory = 0
            while process.poll() is None:
                memory = max([memory, *(_memory(pid) for pid in (_workers() if workers else [process.pid]))])
                time.sleep(0.1)
            seconds = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed: {Path(out, 'err').read_text()[-1000:]}")
        return Run(seconds, memory)


def _workers() -> list[int]:
    """The processes of Ray's workers."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::WorkerProcess"):
                found.append(int(folder.name))
    return found


def _memory(pid: int) -> int:
    """The most bytes of memory that a process has had; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    return 0


def _in_words(row: dict[str, Any]) -> str:
    text = f"{row['seconds_per_image']:.3f} s an image, start {row['start_seconds']:.1f} s, "
    text += f"{row['memory'] / 2**20:.0f} MiB"
    if "speed_up" in row:
        text += f"; {row['speed_up']:.2f} times as fast as the plain process, {row['memory_ratio']:.2f} of its memory"
    return text


if __name__ == "__main__":
    main()
