"""Facts about this process: its memory, its signals, and whether it is one of several of the same launch.

``accelerate launch`` and ``torchrun`` start a program in several processes at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from learn_to_steer.errors import UnsupportedError

# Where launchers and MPI tell a process how many there are.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def require_one_process(what: str) -> None:
    """Check that this is the only process of a launch: work is not divided, and all would write the same files.

    Args:
        what: What runs in one process, for the message.

    Raises:
        UnsupportedError: The environment names several processes.
    """
    for name in COUNTS:
        count = os.environ.get(name, "").strip()
        if count not in ("", "-1", "0", "1"):
            raise UnsupportedError(
                f"{what} runs in one process, but it was started in {count} ({name}={count}), which would all write "
                "the same files; start it by itself, without 'accelerate launch' or 'torchrun'"
            )


def current_memory() -> int:
    """Return the bytes of memory that this process has for itself; 0 if the system does not say.

    What it shares with other processes, such as the code of libraries, is left out.
    """
    sizes = _kibibytes(Path("/proc/self/status"))
    return (sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)) << 10


def free_memory() -> int | None:
    """Return the bytes of memory that programs of this machine could still get; None if the system does not say."""
    available = _kibibytes(Path("/proc/meminfo")).get("MemAvailable")
    return None if available is None else available << 10


def swap_space() -> int:
    """Return the bytes of this machine's swap space; 0 if the system does not say."""
    return _kibibytes(Path("/proc/meminfo")).get("SwapTotal", 0) << 10


def _kibibytes(path: Path) -> dict[str, int]:
    """The sizes in a file of Linux, in KiB; nothing on other systems."""
    sizes = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            with suppress(ValueError, IndexError):
                sizes[name] = int(value.split()[0])
    return sizes


@contextmanager
def keeping_signal_handlers() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM afterwards: some libraries set their own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
