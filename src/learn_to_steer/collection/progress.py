"""A progress bar with the time left, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar: "collecting ━━━ 12/100 images", the time taken and the time left.

    Args:
        what: The task, such as "collecting".
        total: The number of units to do.
        unit: Name of the units, in the plural.

    Yields:
        A function that takes the number of units just done.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # What workers do may be minutes apart.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=1800) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)
