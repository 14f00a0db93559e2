"""Put ``learn-to-steer serve`` under load, with faults, and compare what it answers with what it draws at leisure.

    python reproduce/load_server.py --out out/load.json

Clients ask at the same time, each for one thing after the other: for pictures, for what cannot be drawn, or they hang
up while they wait. After a fifth of the requests the process that draws is killed. Requests that it loses (503) and
those that find a full queue (429) are sent again, as OpenAI's client does. Afterwards one client asks for the same
pictures one by one: each answer has to be the same to the bit, settings in the file included.

"seconds" of a request are those of the answer that counts, from its last sending. Memory is the resident set of the
server and of the process that draws, after request 50 and at the end. The script fails if an answer is wrong, if the
process that died took more than 30 s to come back, or if memory grew by more than 5 %.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from learn_to_steer import storage

TOKEN = "load"
CLI = "import sys; from learn_to_steer.cli import main; sys.exit(main())"
PATH = "/v1/images/generations"
NAMES = ("dog", "cat", "pizza", "robot", "turtle", "bird")
WORDS = ("to the left of", "to the right of", "above", "below")
# Behind all that the model reads: found out only by the process that draws.
UNREAD = f"a picture of {'very ' * 60}big things, and a pizza above a robot"
BAD: list[tuple[int, dict[str, Any]]] = [
    (400, {"prompt": ""}),
    (400, {"n": 9}),
    (400, {"size": "17x64"}),
    (400, {"relations": ["horse | left of | cat"]}),
    (400, {"prompt": UNREAD, "relations": ["pizza | above | robot"]}),
    (401, {"token": "another"}),
    (404, {"model": "../another"}),
    (413, {"prompt": "x" * 100_000}),
]
AFTER = 50  # requests, after which memory is looked at first
MOST_GROWTH, MOST_SECONDS = 1.05, 30.0


@dataclass
class Load:
    """What was seen.

    Attributes:
        answers: Per wish, the different answers to it.
        seconds: Of each answer with pictures.
        statuses: How often each status came, by what was sent.
        wrong: Answers of another status than expected.
        memory: Bytes of the two processes after request ``AFTER``.
        finished: Number of requests that are over.
        restart: Seconds from the death of the process to the next answer of a new one.
    """

    answers: dict[int, list[Any]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    finished: int = 0
    restart: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="flux:emoji-schnell", help="an emoji model")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--wishes", type=int, default=32, help="different requests for pictures")
    parser.add_argument("--batch", type=int, default=4, help="pictures that the server draws together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    wishes = [_wish(draw) for _ in range(options.wishes)]
    tasks = [draw.choices(("good", "bad", "hang up"), (70, 15, 15))[0] for _ in range(options.requests)]
    began = time.monotonic()
    with _server(options.model, options.batch) as (url, process):
        ready = time.monotonic()
        load = _put_load(url, process, tasks, wishes, options)
        loaded = time.monotonic()
        memory = _memory(process)
        twins = {wish: _ask(url, wishes[wish]) for wish in load.answers}
    facts = _facts(load, twins, memory, options) | {
        "start_seconds": ready - began,
        "load_seconds": loaded - ready,
        "all_seconds": time.monotonic() - began,
    }
    for name, value in facts.items():
        print(f"{name}: {round(value, 3) if isinstance(value, float) else value}")
    if options.out:
        storage.write_json(options.out, facts)
    if failures := _failures(load, facts, options):
        sys.exit("\n".join(failures))


def _wish(draw: random.Random) -> dict[str, Any]:
    """A request for pictures."""
    subject, reference = draw.sample(NAMES, 2)
    wish: dict[str, Any] = {"prompt": f"a {subject} {draw.choice(WORDS)} a {reference}", "seed": draw.randrange(1000)}
    wish |= draw.choice([{}, {}, {"steer": False}, {"n": 2}, {"threshold": 0.7}, {"tries": 2}])
    return wish | {"response_format": draw.choice(("url", "b64_json"))}


@contextmanager
def _server(model: str, batch: int) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-c", CLI, "serve", "--model", model, "--port", "0", "--batch", str(batch)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"LEARN_TO_STEER_TOKEN": TOKEN}
    ) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            if not words:
                sys.exit("the server did not start")
            yield words[-1], psutil.Process(process.pid)
        finally:
            process.terminate()


def _put_load(
    url: str, process: psutil.Process, tasks: list[str], wishes: list[dict[str, Any]], options: argparse.Namespace
) -> Load:
    load, lock = Load(), threading.Lock()
    killer = threading.Thread(target=_kill, args=(url, process, load, options.requests // 5))

    def do(number: int) -> None:
        draw = random.Random(f"{options.seed} {number}")
        if tasks[number] == "good":
            wish = draw.randrange(len(wishes))
            statuses: list[int] = []
            answer, seconds = _ask(url, wishes[wish], statuses.append)
            with lock:
                load.seconds.append(seconds)
                load.statuses.update(f"good {status}" for status in statuses)
                known = load.answers.setdefault(wish, [])
                if answer not in known:
                    known.append(answer)
        elif tasks[number] == "bad":
            expected, fields = draw.choice(BAD)
            status = _ask_badly(url, fields)
            with lock:
                load.statuses[f"bad {status}"] += 1
                if status not in (expected, 503):
                    load.wrong.append(f"{status} in place of {expected}")
        else:
            with suppress(httpx.TimeoutException):
                _post(url, draw.choice(wishes), timeout=draw.uniform(0.01, 2))
            with lock:
                load.statuses["hung up"] += 1
        with lock:
            load.finished += 1
            if load.finished == min(AFTER, len(tasks)):
                load.memory = _memory(process)

    killer.start()
    with ThreadPoolExecutor(options.clients) as pool:
        for done in [pool.submit(do, number) for number in range(len(tasks))]:
            done.result()
    killer.join()
    return load


def _kill(url: str, process: psutil.Process, load: Load, after: int) -> None:
    """Kill the process that draws, and wait until another one has drawn."""
    while load.finished < after:
        time.sleep(0.05)
    began = time.monotonic()
    _drawing(process).kill()
    while _post(url, {"prompt": "a dog", "steer": False}).status_code != 200:
        time.sleep(0.05)
    load.restart = time.monotonic() - began


def _drawing(process: psutil.Process) -> psutil.Process:
    """The process that draws: the largest of the server's."""
    return max(process.children(recursive=True), key=lambda child: child.memory_info().rss)


def _memory(process: psutil.Process) -> dict[str, int]:
    return {"server": process.memory_info().rss, "drawing": _drawing(process).memory_info().rss}


def _post(url: str, wish: dict[str, Any], token: str = TOKEN, timeout: float = 300) -> httpx.Response:
    return httpx.post(url + PATH, json=wish, headers={"Authorization": f"Bearer {token}"}, timeout=timeout)


def _ask(url: str, wish: dict[str, Any], note: Callable[[int], None] = lambda status: None) -> tuple[Any, float]:
    """Files and reports that answer a wish, and the seconds it took; sent again if the server has no time or fails."""
    while True:
        began = time.monotonic()
        answer = _post(url, wish)
        note(answer.status_code)
        if answer.status_code in (429, 503):
            time.sleep(float(answer.headers.get("retry-after", 0.5)))
            continue
        if answer.status_code != 200:
            return answer.text, time.monotonic() - began
        entries = answer.json()["data"]
        seconds = time.monotonic() - began
        files = [
            base64.b64decode(one["b64_json"]) if "b64_json" in one else httpx.get(one["url"]).content for one in entries
        ]
        return (files, [one["steering"] for one in entries]), seconds


def _ask_badly(url: str, fields: dict[str, Any]) -> int:
    fields = dict(fields)
    token = fields.pop("token", TOKEN)
    return _post(url, {"prompt": "a dog to the left of a cat"} | fields, token).status_code


def _facts(
    load: Load, twins: dict[int, tuple[Any, float]], memory: dict[str, int], options: argparse.Namespace
) -> dict[str, Any]:
    p50, p95 = np.quantile(load.seconds, [0.5, 0.95]).tolist() if load.seconds else (None, None)
    alone = [seconds for _, seconds in twins.values()]
    return {
        **{name: getattr(options, name) for name in ("model", "requests", "clients", "wishes", "batch", "seed")},
        "statuses": dict(sorted(load.statuses.items())),
        "answered": len(load.seconds),
        "unlike_their_twins": sum(answers != [twins[wish][0]] for wish, answers in load.answers.items()),
        "restart_seconds": load.restart,
        "p50_seconds": p50,
        "p95_seconds": p95,
        "sequential_p50_seconds": float(np.median(alone)) if alone else None,
        "sequential_mean_seconds": float(np.mean(alone)) if alone else None,
        "bytes_after_50": load.memory,
        "bytes_at_the_end": memory,
        "growth": {name: memory[name] / load.memory[name] for name in memory},
        "growth_of_both": sum(memory.values()) / sum(load.memory.values()),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "cores": os.cpu_count(),
    }


def _failures(load: Load, facts: dict[str, Any], options: argparse.Namespace) -> list[str]:
    failures = [f"wrong status: {one}" for one in load.wrong]
    if facts["unlike_their_twins"]:
        failures.append(f"{facts['unlike_their_twins']} of {len(load.answers)} wishes were answered in different ways")
    if load.restart is None or load.restart > MOST_SECONDS:
        failures.append(f"the process that died came back after {load.restart} s")
    if options.requests >= 2 * AFTER and facts["growth_of_both"] > MOST_GROWTH:
        failures.append(f"memory grew to {facts['growth_of_both']:.3f} times what it was after {AFTER} requests")
    return failures


if __name__ == "__main__":
    main()
