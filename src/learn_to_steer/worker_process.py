"""Shards of work, and what runs in the process of a worker: it holds what was opened, and answers with replies.

Imports no Ray; see ``distributed``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from learn_to_steer.errors import SteerError, WorkerError
from learn_to_steer.processes import current_memory

FILE = "workers.jsonl"  # a line a shard
NAMED = 3  # failed shards that an error names in full


class Worker(Protocol):
    """What runs shards. It is made in the worker's process by calling its class; shards name further methods."""

    def describe(self) -> Any:
        """Return what must be equal on all workers, such as the identity of the model; small."""


@dataclass(frozen=True)
class Shard:
    """A part of the work that is done, or made again, as a whole.

    Attributes:
        name: A name that follows from the content; see ``shard_name``.
        about: What it is, in words, for messages.
        work: What the method of the worker gets.
    """

    name: str
    about: str
    work: Any


def shard_name(*content: Any) -> str:
    """Return the name of a shard: hexadecimal digits that follow from its content, which JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass
class Reply:
    """What comes back from a worker's process."""

    value: Any = None
    """What was returned."""
    error: SteerError | None = None
    """What was raised instead."""
    pid: int = 0
    """The number of the process."""
    seconds: float = 0.0
    """How long it took."""
    memory: int = 0
    """Bytes of memory of the process."""
    gpu: tuple[int, int] = (0, 0)
    """Bytes of GPU memory that the process has taken, and that the GPU has."""
    messages: list[tuple[str, int, str]] = field(default_factory=list)
    """What the package logged: logger, level and text."""


class _Messages(logging.Handler):
    """Keeps what the package logs, to be shown by the process that the user sees."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.kept: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.name, record.levelno, record.getMessage()))


class WorkerProcess:
    """Holds a worker and answers with replies, never with an exception.

    Args:
        folder: The folder that relative paths start from.
        threads: The number of threads of torch. Another one may change results by rounding.
        uses_gpu: Whether a GPU may be used.
    """

    def __init__(self, folder: str, threads: int, uses_gpu: bool) -> None:
        if not uses_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import torch

        if os.path.isdir(folder):  # relative paths mean what they mean to the user
            os.chdir(folder)
        torch.set_num_threads(threads)
        self._worker: Any = None
        self._log = _Messages()
        package = logging.getLogger("learn_to_steer")
        package.addHandler(self._log)
        package.setLevel(logging.INFO)

    def start(self, build: Callable[..., Worker], arguments: Sequence[Any]) -> Reply:
        """Make the worker.

        Args:
            build: Its class.
            arguments: What it is made of.

        Returns:
            Its description.
        """

        def opened() -> Any:
            self._worker = build(*arguments)
            return self._worker.describe()

        return self._reply(opened)

    def call(self, method: str, work: Any) -> Reply:
        """Call a method of the worker.

        Args:
            method: Its name.
            work: Its argument.
        """
        return self._reply(lambda: getattr(self._worker, method)(work))

    def _reply(self, what: Callable[[], Any]) -> Reply:
        reply, began = Reply(pid=os.getpid()), time.monotonic()
        try:
            reply.value = what()
        except SteerError as error:
            reply.error = error
        except Exception as error:
            reply.error = WorkerError(f"{type(error).__name__}: {error}")
            reply.messages.append((__name__, logging.DEBUG, traceback.format_exc()))
        reply.seconds = time.monotonic() - began
        reply.memory, reply.gpu = current_memory(), _gpu_memory()
        reply.messages += self._log.kept
        self._log.kept = []
        return reply


def _gpu_memory() -> tuple[int, int]:
    """Bytes of GPU memory that this process has taken at most, and that its GPU has; zeros without one."""
    import torch

    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory


def describe_failures(failed: Mapping[str, str], left: int, total: int, kept: bool) -> str:
    """Name the shards that failed, and say how to go on.

    Args:
        failed: What happened to them, by name.
        left: The number of shards that were not begun, since too many had failed.
        total: The number of all shards.
        kept: Whether what is done is kept.
    """
    listed = "; ".join(f"shard {name} ({why})" for name, why in list(failed.items())[:NAMED])
    more = f"; and {len(failed) - NAMED} more, see {FILE}" if len(failed) > NAMED else ""
    rest = f"{left} were not begun after that" if left else "the others are done"
    again = f"{' and kept' if kept else ''}: mend the cause and run the same command again"
    return f"{len(failed)} of {total} shards failed: {listed}{more}; {rest}{again}"
