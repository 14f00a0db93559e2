"""Ctrl-C and SIGTERM at any moment: one line, the usual exit code, no traceback, no temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GO_ON = "Stopped. Run the same command again to go on."
START_OVER = "Stopped. Run the same command again to start over."
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
START = "import sys; from learn_to_steer.cli import main; "


def stopped(code: str, *words: str, number: int = signal.SIGINT) -> tuple[int, str, str]:
    """Run the command line after ``code``, which sends the signal at some moment, and return what came of it."""
    script = f"import os, signal\ndef stop(): os.kill(os.getpid(), {int(number)})\n{code}\n{START}sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout, done.stderr


# Each sends the signal at another moment.
WHILE_IMPORTING = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            stop()
sys.meta_path.insert(0, Finder())
"""
IN_A_VERB = """
import learn_to_steer.prompts as prompts
prompts.analyse = lambda *a, **k: stop()
"""
IN_A_DESTRUCTOR = """
import learn_to_steer.prompts as prompts
class Late:
    def __del__(self): stop()
def analyse(*a, **k):
    Late()
    while True: pass
prompts.analyse = analyse
"""
AS_ANOTHER_EXCEPTION = """
import learn_to_steer.prompts as prompts
def analyse(*a, **k):
    try: stop()
    except KeyboardInterrupt: raise RecursionError("of a library")
prompts.analyse = analyse
"""
WHILE_WRITING = """
import os as system
from learn_to_steer import atomic_files
atomic_files.os = type("Os", (), {**vars(system), "fsync": staticmethod(lambda descriptor: stop())})
"""


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("code", [WHILE_IMPORTING, IN_A_VERB, IN_A_DESTRUCTOR, AS_ANOTHER_EXCEPTION])
def test_a_signal_ends_with_one_line(code: str, number: int) -> None:
    assert stopped(code, "parse", "a dog left of a cat", number=number) == (CODES[number], "", START_OVER + "\n")


def test_verbs_that_go_on_say_so() -> None:
    for verb in ("collect", "train", "evaluate", "score"):
        assert stopped(WHILE_IMPORTING, verb) == (130, "", GO_ON + "\n")


@pytest.mark.parametrize("number", CODES)
def test_no_temporary_file_is_left(tmp_path: Path, number: int) -> None:
    words = ("export-prompts", "--benchmark", "ood", "--out", str(tmp_path))
    assert stopped(WHILE_WRITING, *words, number=number) == (CODES[number], "", START_OVER + "\n")
    assert list(tmp_path.iterdir()) == []


def test_a_second_ctrl_c_ends_at_once() -> None:
    code = """
import learn_to_steer.prompts as prompts
def analyse(*a, **k):
    try: stop()
    finally: stop()
prompts.analyse = analyse
"""
    returned, _, error = stopped(code, "parse", "a dog left of a cat")
    assert (returned, error) == (-signal.SIGINT, "")


def test_handlers_of_a_caller_in_python_are_restored(run: Any, monkeypatch: Any) -> None:
    before = [signal.getsignal(number) for number in CODES]
    monkeypatch.setattr("learn_to_steer.prompts.analyse", lambda *a, **k: os.kill(os.getpid(), signal.SIGINT))
    assert run("parse", "a dog left of a cat") == (130, "", START_OVER + "\n")
    assert [signal.getsignal(number) for number in CODES] == before


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(
    "words", [["generate", "a dog left of a cat"], ["evaluate", "--benchmark", "unseen", "--limit", "2"]]
)
def test_signals_at_many_moments(words: list[str], number: int, tmp_path: Path) -> None:
    """The signal comes after growing numbers of function calls."""
    for calls in (1_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000):
        code = f"""
import sys
count = 0
def trace(*_):
    global count
    count += 1
    if count == {calls}:
        sys.setprofile(None)
        stop()
sys.setprofile(trace)
"""
        returned, _, error = stopped(code, *words, "--out", str(tmp_path / "out"), number=number)
        if returned == 0:
            break
        lines = [line for line in error.splitlines() if line.startswith("Stopped.")]
        assert (returned, len(lines)) == (CODES[number], 1) and "Traceback" not in error, (calls, error)
        assert not list(tmp_path.rglob("*.tmp"))
