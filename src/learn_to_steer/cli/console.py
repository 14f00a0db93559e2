"""What the command line says while it works: log lines, progress, versions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

Advance = Callable[[int, int], None]


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logging() -> None:
    """Send the package's own log to stderr, warnings and worse; ``--debug`` lowers the level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    log = logging.getLogger("learn_to_steer")
    log.handlers[:] = [handler]
    log.setLevel(logging.WARNING)
    logging.getLogger("learn_to_steer.evaluation.model").setLevel(logging.INFO)  # what a run will need
    log.propagate = False


@contextmanager
def progress(what: str, unit: str) -> Iterator[Advance]:
    """Show how much is done; the yielded function is told the number done and the total.

    A bar that goes away at the end on a terminal, a line every tenth of the way elsewhere; both on stderr.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Tenths(what, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Tenths:
    """Prints a line whenever another tenth is done."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._said = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > self._said:
            self._said = tenth
            print(f"{self._what}: {done} of {total} {self._unit}", file=sys.stderr, flush=True)


def package_version(name: str) -> str:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
