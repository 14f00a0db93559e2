"""What the command line prints: results to stdout; log lines and progress to stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from learn_to_steer.plain_text import one_line, printable
from learn_to_steer.worker_options import WorkersConfig

Advance = Callable[[int, int], None]  # takes the number done and the total


class _OneLine(logging.Formatter):
    """ "warning: ..."; a traceback, if there is one, goes below."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {one_line(record.getMessage())}"
        if not record.exc_info:
            return text
        trace = self.formatException(record.exc_info).splitlines()
        return "\n".join([text, *(printable(line) for line in trace)])


def show(text: str, file: TextIO | None = None) -> None:
    """Print a line. Characters that a terminal would obey are shown as escapes: texts may come from foreign files.

    Args:
        text: The line.
        file: Where to print it. None: stdout.
    """
    stream = file or sys.stdout
    encoding = stream.encoding or "utf-8"  # of a terminal it may be one that lacks characters
    print(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


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
def progress(label: str, unit: str, workers: WorkersConfig | None = None) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, a line after every tenth of the work elsewhere.

    Args:
        label: What is being done.
        unit: What is counted, in the plural.
        workers: Says on how many workers.

    Yields:
        A function to call with the number done and the total.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if workers is not None and workers.has_workers:
        where = "the cluster" if workers.workers is None else f"{workers.workers} workers"
        label = f"{label} on {where}"
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
    # Shards of workers may be minutes apart.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=1800) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _TenthsPrinter:
    """Prints a line whenever another tenth is done, with the time left if it is a minute or more."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._printed = -1
        self._began: tuple[float, int] | None = None  # when, and what was done then

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now, done
        since, before = self._began
        left = (now - since) / (done - before) * (total - done) if done > before else 0.0
        tenth = 10 * done // max(total, 1)
        if tenth > self._printed:
            self._printed = tenth
            time_left = f", about {left / 60:.0f} min left" if left >= 60 else ""
            print(f"{self._label}: {done} of {total} {self._unit}{time_left}", file=sys.stderr, flush=True)
