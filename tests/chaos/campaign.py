"""Kill collect, train, evaluate and generate again and again; what they leave must equal an uninterrupted run.

::

    python tests/chaos/campaign.py --kills 120 --seed 0 --out out/chaos

Every case runs one verb on the small emoji model in a new folder and stops it one to three times: by SIGKILL before or
after the n-th call that changes a file, or with half of a write done; by SIGKILL, SIGTERM or SIGINT at a random time.
Then it runs the same command until it ends. The files must equal those of a run that was not stopped, byte by byte but
for the times in ``FREE`` (checkpoints value by value), with nothing left over, also in ``TMPDIR``. SIGINT must end in
exit code 130 and one line. A few cases stop a new Python process while it still imports.

The cases are forked from a process that has imported torch, so that 100 kills take minutes. Prints a table, writes
``chaos.json`` and ends with exit code 1 if anything differs or fewer kills than asked for were made.
"""

from __future__ import annotations

import argparse
import builtins
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

# Times, the only values that differ between two runs.
FREE = ("seconds", "seconds_per_image")
PATIENCE = 300.0  # seconds; a run takes about five
SHARD = 4  # images per shard, so that a small collection has several
OUT = "out"
DOG, CAT = "a dog to the left of a teddy bear", "a cat above a pizza"
# By verb: its arguments; "MAPS" stands for a finished collection.
VERBS: dict[str, list[str]] = {
    "train": ["train", "--data", "MAPS", "--epochs", "4", "--width", "16", "--out", OUT],
    "collect": [
        *("collect", "--model", "sd:emoji", "--limit", "16", "--batch", "4", "--levels", "0.9,0.7"),
        *("--reduce", "layer-mean", "--quality", "100", "--out", OUT),
    ],
    "evaluate": [
        *("evaluate", "--model", "sd:emoji", "--benchmark", "unseen", "--limit", "3", "--images", "2"),
        *("--batch", "4", "--steps", "2", "--out", OUT),
    ],
    "generate": ["generate", DOG, CAT, "--model", "sd:emoji", "--steps", "2", "--out", OUT],
}
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


@dataclass(frozen=True)
class Kill:
    """Where a run is stopped: at the ``number``-th event of a kind, or after some seconds."""

    signal: str
    event: str = ""
    number: int = 0
    seconds: float = 0.0
    cold: bool = False
    """Whether a new Python process is started, which first imports torch."""

    def __str__(self) -> str:
        where = f"{self.event} {self.number}" if self.event else f"{self.seconds:.2f} s"
        return f"{self.signal} at {where}{' of a new process' if self.cold else ''}"


@dataclass
class Case:
    """A verb, the kills to make, and what came of it."""

    number: int
    verb: str
    kills: list[Kill]
    made: list[Kill] = field(default_factory=list)
    """The kills that met the run before its end."""
    problems: list[str] = field(default_factory=list)


class Events:
    """Counts the calls that change files in this process, and sends a signal at one of them."""

    def __init__(self, kill: Kill | None) -> None:
        self.kill, self.counts = kill, Counter[str]()
        for name in ("replace", "rename", "fsync", "unlink", "ftruncate", "write"):
            setattr(os, name, self._around(name, getattr(os, name)))
        opened = io.open
        io.open = builtins.open = lambda *args, **kwargs: self._opened(opened, *args, **kwargs)  # type: ignore[assignment]

    def _reached(self, event: str) -> bool:
        self.counts[event] += 1
        return self.kill is not None and (self.kill.event, self.kill.number) == (event, self.counts[event])

    def _at(self, event: str) -> None:
        if self._reached(event):
            os.kill(os.getpid(), SIGNALS[self.kill.signal])  # type: ignore[union-attr]

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._at(f"before {name}")
            value = function(*args, **kwargs)
            self._at(f"after {name}")
            return value

        return called

    def _opened(self, opened: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        mode = kwargs.get("mode", args[1] if len(args) > 1 else "r")
        if not isinstance(mode, str) or not set(mode) & set("wax"):
            return opened(*args, **kwargs)
        self._at("before open")
        file = opened(*args, **kwargs)
        self._at("after open")
        return HalfWritten(file, self.kill) if self._reached("inside a write") and self.kill else file


class HalfWritten:
    """A file whose first write reaches the disk by half; then the signal comes."""

    def __init__(self, file: Any, kill: Kill) -> None:
        self._file, self._kill = file, kill

    def write(self, data: Any) -> Any:
        if not isinstance(data, (str, bytes, bytearray)):
            data = bytes(data)
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        os.kill(os.getpid(), SIGNALS[self._kill.signal])
        return self._file.write(data[len(data) // 2 :])

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, negative for a signal, and what it wrote to stderr."""

    code: int
    err: str
    seconds: float


def run(argv: Sequence[str], folder: Path, kill: Kill | None, counts: Path | None = None) -> Ended:
    """Run a command in a folder, in a fork of this process or in a new one, and stop it as ``kill`` says."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary(folder).mkdir(exist_ok=True)
    log = folder.with_name(f"{folder.name}.err")
    began = time.monotonic()
    if kill is not None and kill.cold:
        command = [sys.executable, "-c", "import sys; from learn_to_steer.cli import main; sys.exit(main())", *argv]
        script = Path(sys.executable).with_name("learn-to-steer")
        command = [str(script), *argv] if script.is_file() else command
        with log.open("wb") as err:
            environment = os.environ | {"TMPDIR": str(temporary(folder))}
            pid = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=err).pid
    else:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _command(argv, folder, log, kill, counts, writer)
        os.close(writer)
        os.read(reader, 1)  # until the command begins
        os.close(reader)
        began = time.monotonic()
    sent = kill is None or bool(kill.event)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        passed = time.monotonic() - began
        if not sent and kill is not None and passed >= kill.seconds:
            os.kill(pid, SIGNALS[kill.signal])
            sent = True
        if passed > PATIENCE:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Ended(-1000, f"no end after {PATIENCE} s", passed)
        time.sleep(0.002)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), time.monotonic() - began)


def temporary(folder: Path) -> Path:
    """The folder for temporary files (``TMPDIR``) of the runs in ``folder``."""
    return folder.with_name(f"{folder.name}.tmp")


def _command(argv: Sequence[str], folder: Path, log: Path, kill: Kill | None, counts: Path | None, ready: int) -> None:
    """The command, in the forked process; does not return."""
    code = 1
    try:
        os.chdir(folder)
        os.environ["TMPDIR"] = str(temporary(folder))
        tempfile.tempdir = None
        for number, target in ((1, Path(os.devnull)), (2, log)):
            os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["learn-to-steer", *argv]
        (entry,) = entry_points(group="console_scripts", name="learn-to-steer")
        main = entry.load()
        events = Events(kill)
        os.close(ready)
        try:
            code = main() or 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if counts is not None:
            Path(counts).write_text(json.dumps(events.counts))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder, without the values that may differ, and its empty folders."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                files[f"{name}/"] = b""
        elif path.suffix == ".json":
            files[name] = json.dumps(_without_times(json.loads(path.read_bytes()))).encode()
        elif path.suffix == ".jsonl":
            rows = [_without_times(json.loads(line)) for line in path.read_bytes().splitlines()]
            files[name] = "\n".join(json.dumps(row) for row in rows).encode()
        elif path.suffix == ".pt":  # the same values can be pickled in several ways
            files[name] = repr(_plain(_checkpoint(path))).encode()
        else:
            files[name] = path.read_bytes()
    return files


def _checkpoint(path: Path) -> Any:
    import torch

    return torch.load(path, weights_only=True)


def _plain(value: Any) -> Any:
    """A value with every tensor as its type, shape and numbers."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return (str(value.dtype), *value.shape, value.tolist()) if hasattr(value, "tolist") else value


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key not in FREE}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def differences(ours: dict[str, bytes], theirs: dict[str, bytes]) -> Iterator[str]:
    """What the files of a stopped run have more, less or otherwise than those of another."""
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"left over: {name}"
        elif name not in ours:
            yield f"missing: {name}"
        elif ours[name] != theirs[name]:
            yield f"differs: {name}"


def problem_of(kill: Kill, ended: Ended) -> str:
    """What is wrong with how a stopped run ended; "" if nothing is."""
    last = ended.err.strip().splitlines()[-1:] or [""]
    if "Traceback" in ended.err:
        return f"traceback, {last[0]}"
    if ended.code == -1000:
        return ended.err
    if kill.signal == "SIGINT":
        stopped = [line for line in ended.err.splitlines() if "stopped" in line.lower()]
        return "" if ended.code == 130 and len(stopped) == 1 else f"exit code {ended.code}, {last[0]!r} at the end"
    expected = {"SIGKILL": (-9,), "SIGTERM": (-15, 143)}[kill.signal]
    return "" if ended.code in expected else f"exit code {ended.code}, {last[0]!r} at the end"


def run_case(case: Case, argv: Sequence[str], folder: Path, expected: dict[str, bytes]) -> None:
    """Run a case and note what is wrong."""
    for kill in case.kills:
        ended = run(argv, folder, kill)
        if ended.code == 0:  # the run was over before the signal
            continue
        case.made.append(kill)
        if wrong := problem_of(kill, ended):
            case.problems.append(f"{kill}: {wrong}")
    ended = run(argv, folder, None)
    if ended.code != 0:
        case.problems.append(f"the same command again: exit code {ended.code}, {ended.err.strip()[-300:]}")
        return
    case.problems += differences(content(folder), expected)
    case.problems += [f"left over in TMPDIR: {name}" for name in content(temporary(folder))]


def plan(events: dict[str, int], seconds: float, kills: int, rng: random.Random) -> list[list[Kill]]:
    """The kills of a verb, in groups of one to three that stop the same run.

    Args:
        events: The number of calls of each kind in a run that is not stopped.
        seconds: How long that run takes.
        kills: The number of kills.
        rng: Chooses among them.
    """
    points = [(event, n) for event, count in sorted(events.items()) for n in range(1, count + 1)]
    by_event = {event: [n for name, n in points if name == event] for event, _ in points}
    chosen: list[Kill] = []
    # The first and the last call of each kind, then any.
    ends = [(event, n) for event, numbers in by_event.items() for n in dict.fromkeys((numbers[0], numbers[-1]))]
    rng.shuffle(ends)
    others = [point for point in points if point not in ends]
    rng.shuffle(others)
    at_points = (ends + others)[: kills * 2 // 3]
    for number, (event, n) in enumerate(at_points):
        chosen.append(Kill("SIGINT" if number % 7 == 3 else "SIGTERM" if number % 7 == 6 else "SIGKILL", event, n))
    while len(chosen) < kills:
        name = ("SIGKILL", "SIGINT", "SIGKILL", "SIGTERM")[len(chosen) % 4]
        chosen.append(Kill(name, seconds=rng.uniform(0.02, seconds)))
    rng.shuffle(chosen)
    groups = []
    while chosen:
        size = rng.choice((1, 1, 2, 3))
        groups.append(chosen[:size])
        chosen = chosen[size:]
    return groups


def preload() -> None:
    """Import what the verbs import, so that forked processes need not."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE"):
        os.environ[variable] = "1"  # a process in which torch has threads cannot be forked
    import torch

    torch.set_num_threads(1)
    from learn_to_steer import load_pipeline
    from learn_to_steer.cli import image_generation  # noqa: F401
    from learn_to_steer.collection import collector
    from learn_to_steer.evaluation import load_scorer
    from learn_to_steer.training import train_classifier  # noqa: F401

    collector.SHARD = SHARD
    load_pipeline("sd:emoji")
    load_scorer("emoji")


def in_parallel(cases: Sequence[Case], jobs: int, work: Callable[[Case], None], until: float) -> Iterator[Case]:
    """Run the cases in forked processes and yield each as it ends; none is begun after ``until``."""
    waiting, running = list(cases), dict[int, tuple[Case, int]]()
    while running or (waiting and time.monotonic() < until):
        while waiting and len(running) < jobs and time.monotonic() < until:
            case = waiting.pop(0)
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    work(case)
                except BaseException:
                    case.problems.append(traceback.format_exc())
                with os.fdopen(writer, "w") as pipe:
                    json.dump({"made": [asdict(kill) for kill in case.made], "problems": case.problems}, pipe)
                os._exit(0)
            os.close(writer)
            running[pid] = case, reader
        pid, _ = os.wait()
        if pid not in running:
            continue
        case, reader = running.pop(pid)
        with os.fdopen(reader) as pipe:
            result = json.load(pipe)
        case.made, case.problems = [Kill(**kill) for kill in result["made"]], result["problems"]
        yield case


def table(cases: Sequence[Case]) -> str:
    lines = [f"{'verb':10}{'runs':>6}{'kills':>7}  {'at a call':>10}{'at a time':>10}{'KILL':>6}{'TERM':>6}{'INT':>6}"]
    lines[0] += f"{'wrong':>7}"
    for verb in dict.fromkeys(case.verb for case in cases):
        mine = [case for case in cases if case.verb == verb]
        made = [kill for case in mine for kill in case.made]
        by_signal = Counter(kill.signal for kill in made)
        at_call = sum(bool(kill.event) for kill in made)
        line = f"{verb:10}{len(mine):6}{len(made):7}  {at_call:10}{len(made) - at_call:10}"
        line += "".join(f"{by_signal[name]:6}" for name in ("SIGKILL", "SIGTERM", "SIGINT"))
        lines.append(f"{line}{sum(bool(case.problems) for case in mine):7}")
    return "\n".join(lines)


def campaign(options: argparse.Namespace) -> int:
    out = Path(options.out).absolute()
    shutil.rmtree(out / "runs", ignore_errors=True)
    began = time.monotonic()
    until = began + 60 * options.minutes
    preload()
    maps = out / "runs" / "maps"
    collected = run([*VERBS["collect"][:-1], str(maps)], out / "runs" / "collecting", None)
    if collected.code != 0:
        print(f"the collection to train on failed: {collected.err}", file=sys.stderr)
        return 1
    verbs = {verb: [str(maps) if word == "MAPS" else word for word in VERBS[verb]] for verb in options.verbs}
    expected, straight = dict[str, dict[str, bytes]](), dict[str, tuple[dict[str, int], float]]()
    for verb, argv in verbs.items():
        folder, counts = out / "runs" / f"{verb}-straight", out / "runs" / f"{verb}.counts"
        ended = run(argv, folder, None, counts)
        if ended.code != 0:
            print(f"{verb} failed without a kill: {ended.err}", file=sys.stderr)
            return 1
        expected[verb] = content(folder)
        straight[verb] = json.loads(counts.read_text()), ended.seconds

    def work(case: Case) -> None:
        folder = out / "runs" / f"case-{case.number:03d}"
        run_case(case, verbs[case.verb], folder, expected[case.verb])
        if not case.problems:
            shutil.rmtree(folder)
            shutil.rmtree(temporary(folder))

    rng = random.Random(options.seed)
    weights = {verb: 2 if verb == "train" else 1 for verb in verbs}  # its runs are the shortest
    ended_cases: list[Case] = []
    made = 0
    while made < options.kills and time.monotonic() < until:  # again if many runs were over before their kill
        cases = []
        for verb, weight in weights.items():
            share = -(-(options.kills - made) * weight // sum(weights.values()))
            groups = plan(*straight[verb], share, rng)
            if not ended_cases:
                groups += [[Kill("SIGINT", seconds=rng.uniform(0.3, 4.0), cold=True)] for _ in range(options.cold)]
            cases += [Case(0, verb, kills) for kills in groups]
        rng.shuffle(cases)
        for number, case in enumerate(cases, start=len(ended_cases)):
            case.number = number
        started, before = time.monotonic(), len(ended_cases)
        for case in in_parallel(cases, options.jobs, work, until):
            ended_cases.append(case)
            done = len(ended_cases) - before
            left = (time.monotonic() - started) / done * (len(cases) - done)
            made += len(case.made)
            verdict = "; ".join(case.problems) or "equal"
            told = ", ".join(map(str, case.made)) or "no kill before its end"
            print(f"[{made} kills, {left / 60:.1f} min left] {case.verb}: {told}: {verdict}", flush=True)
    wrong = [case for case in ended_cases if case.problems]
    print(table(ended_cases))
    print(f"{made} kills in {len(ended_cases)} runs, {len(wrong)} wrong; {(time.monotonic() - began) / 60:.1f} min")
    result = {"seed": options.seed, "kills": made, "runs": len(ended_cases), "wrong": len(wrong)}
    rows = [asdict(case) for case in ended_cases]
    (out / "chaos.json").write_text(json.dumps(result | {"cases": rows}, indent=1) + "\n")
    if made < options.kills:
        print(f"fewer than the {options.kills} kills asked for; give it more --minutes", file=sys.stderr)
    return 1 if wrong or made < options.kills else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=40.0, help="no run is begun after so many minutes")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    parser.add_argument("--cold", type=int, default=2, help="SIGINTs to a new process, per verb")
    parser.add_argument("--out", default="out/chaos")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        return campaign(options)
    return 130


if __name__ == "__main__":
    sys.exit(main())
