"""The child process that holds the model. It can be killed, and be started again, without harm to the server."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from learn_to_steer.errors import SteerError
from learn_to_steer.serve.config import ServeConfig
from learn_to_steer.serve.jobs import Failed, Job, Picture, StepSeen

LAST = 3.0  # seconds that the process may take to end by itself
EVERY_BATCH = -1
GRACE = 10.0  # seconds that a cancelled batch may take to end before the process is killed
PRELOADED = ["learn_to_steer.serve.drawing", "diffusers.pipelines.pipeline_utils"]
log = logging.getLogger(__name__)


class WorkerDiedError(Exception):
    """The process ended before it had answered."""


class Worker:
    """Starts the process, and draws in it. ``draw`` and ``start`` are called from one thread at a time.

    Attributes:
        facts: What the model is like (``drawing.ModelFacts``).
        starts: How often the process was started.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._context = _context()
        self._cancelled: Any = self._context.Value("q", 0, lock=False)  # written by one process
        self._cancelled_at = 0.0
        self._stopped = threading.Event()
        self._process: Any = None
        self.facts: Any = None
        self.starts = 0

    def start(self) -> None:
        """Start the process and wait until the model is loaded.

        Raises:
            SteerError: The model cannot be loaded.
            WorkerDiedError: The process died while it loaded it.
        """
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(theirs, self._config, self._cancelled), daemon=True)
        self._process.start()
        theirs.close()  # the end of the process must be seen as the end of the connection
        if self._stopped.is_set():
            self._process.kill()
        self.starts += 1
        answer = self._receive()
        if isinstance(answer, Failed):
            raise SteerError(answer.reason)
        self.facts = answer

    @property
    def pid(self) -> int | None:
        """Number of the process."""
        return self._process.pid if self._process else None

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def draw(
        self, number: int, jobs: Sequence[Job], tell: Callable[[StepSeen], None] = lambda step: None
    ) -> list[Picture | Failed]:
        """Draw a batch.

        Args:
            number: Number of the batch, from 1; no two have the same.
            jobs: Jobs of the same shape.
            tell: Called with every step of watched jobs.

        Raises:
            WorkerDiedError: The process died, or was killed since it did not end a cancelled batch.
        """
        try:
            self._connection.send((number, list(jobs)))
            while True:
                while not self._connection.poll(0.5):
                    if self._cancelled.value == number and time.monotonic() > self._cancelled_at + GRACE:
                        log.warning("a cancelled batch did not end; its process is killed")
                        self._process.kill()
                answer: list[Picture | Failed] | StepSeen = self._receive()
                if not isinstance(answer, StepSeen):
                    return answer
                tell(answer)
        except OSError as error:
            raise WorkerDiedError from error

    def cancel(self, number: int) -> None:
        """End a batch at its next denoising step. May be called from any thread."""
        self._cancelled_at = time.monotonic()
        self._cancelled.value = number

    def stop(self) -> None:
        """End the process for good."""
        self._stopped.set()
        if self._process is None:
            return
        self._cancelled.value = EVERY_BATCH
        with suppress(OSError):
            self._connection.send(None)
            self._process.join(LAST)
        self.join()

    def join(self) -> None:
        """End the process, which has closed its connection, and wait for its end."""
        self._process.kill()
        self._process.join()

    def restart(self) -> None:
        """Start the process again, until it runs or ``stop`` is called. Waits a little longer after each failure."""
        pause = 0.1
        while not self._stopped.is_set():
            try:
                self.start()
                return
            except (SteerError, WorkerDiedError) as error:
                log.error("the model could not be loaded again: %s", str(error) or "its process died")
            self._stopped.wait(pause)
            pause = min(2 * pause, 10)

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerDiedError from error


def _context() -> Any:
    """How the process is started. On Linux, importing the libraries, most of the time it takes, is done only once."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _work(connection: Connection, config: ServeConfig, cancelled: Any) -> None:
    """What the process does: load the model, then answer batches until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which ends this process
    # Imports torch.
    from learn_to_steer.serve.drawing import Painter

    try:
        painter = Painter(config.model, config.classifier, config.device, config.batch)
    except SteerError as error:
        connection.send(Failed(400, str(error)))
        return
    connection.send(painter.facts())
    while True:
        try:
            batch = connection.recv()
            if batch is None:
                return
            number, jobs = batch
            connection.send(painter.draw(jobs, partial(_is_cancelled, cancelled, number), connection.send))
        except (EOFError, BrokenPipeError):
            return


def _is_cancelled(cancelled: Any, number: int) -> bool:
    return cancelled.value in (number, EVERY_BATCH)
