"""How many examples a fuzz test runs, a watchdog for examples that hang, and what the tests share.

``FUZZ=thorough`` (set by ``make test-all``) runs ten times as many examples, other ones in every run. Otherwise the
examples are the same in every run. A fault that was found is an ``@example`` of its test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, is_hypothesis_test, settings

HANGS = 30  # seconds; an example takes milliseconds, a few of them a second on a busy machine

_COMMON: dict[str, Any] = {
    "deadline": None,  # the watchdog stops an example that hangs; how long the others take is not tested
    "database": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}
settings.register_profile(
    "quick",
    max_examples=20,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    **_COMMON,
)
settings.register_profile("thorough", max_examples=200, **_COMMON)
settings.load_profile(os.environ.get("FUZZ") or "quick")


class Hang(BaseException):
    """An example that does not end; no handler of exceptions in the code catches it."""


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Watch and count the examples of a hypothesis test: one that runs fewer than it claims fails."""
    test = getattr(item, "obj", None)
    if not is_hypothesis_test(test):
        return (yield)
    inner, ended = test.hypothesis.inner_test, 0  # hypothesis documents that plug-ins may replace it

    @wraps(inner)
    def watched(*args: Any, **kwargs: Any) -> None:
        nonlocal ended
        try:
            with watchdog(HANGS):
                inner(*args, **kwargs)
        except Hang as error:
            pytest.fail(str(error))
        ended += 1

    test.hypothesis.inner_test = watched
    try:
        result = yield
    finally:
        test.hypothesis.inner_test = inner
    claimed = test._hypothesis_internal_use_settings.max_examples
    assert ended >= claimed, f"{ended} examples ran, not {claimed}"
    return result


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """``fresh()``: a new empty folder; the one before is removed, so that examples do not see each other's files."""
    number = 0

    def folder() -> Path:
        nonlocal number
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)
        number += 1
        (tmp_path / str(number)).mkdir()
        return tmp_path / str(number)

    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection fails at once."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
