"""What the command line prints to stderr while it works: log lines and progress."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, int], None]  # takes the number done and the total


class _OneLine(logging.Formatter):
    """ "warning: ..."; a traceback, if there is one, goes below."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logging() -> None:
    """Log the package's warnings and errors to stderr; ``--debug`` adds everything else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    log = logging.getLogger("learn_to_steer")
    log.handlers[:] = [handler]
    log.setLevel(logging.WARNING)
    logging.getLogger("learn_to_steer.evaluation.model").setLevel(logging.INFO)  # logs the memory needed
    log.propagate = False


@contextmanager
def progress(label: str, unit: str) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, a line after every tenth of the work elsewhere.

    Args:
        label: What is being done.
        unit: What is counted, in the plural.

    Yields:
        A function to call with the number done and the total.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _TenthsPrinter(label, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _TenthsPrinter:
    """Prints a line whenever another tenth is done."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._printed = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > self._printed:
            self._printed = tenth
            print(f"{self._label}: {done} of {total} {self._unit}", file=sys.stderr, flush=True)
