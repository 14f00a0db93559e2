"""A bounded queue of pictures, drawn in batches by the worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest

from learn_to_steer.serve.jobs import Failed, Job, Picture, StepSeen
from learn_to_steer.serve.worker import Worker, WorkerDiedError

WATCH = 1.0  # seconds between looks at whether the worker lives
log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """There is no room for these pictures.

    Attributes:
        wait: Seconds after which there may be.
    """

    def __init__(self, wait: int) -> None:
        super().__init__(f"the queue is full; try again in {wait} s")
        self.wait = wait


@dataclass(eq=False)
class _Waiting:
    job: Job
    tell: Callable[[StepSeen], None] | None = None
    answer: asyncio.Future[Picture | Failed] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Dispatcher:
    """Draws what is submitted, in order. All methods are called on the event loop.

    Args:
        worker: The worker, started.
        rows: Pictures of a batch.
        limit: Pictures that may wait or be drawn at a time.
    """

    def __init__(self, worker: Worker, rows: int, limit: int) -> None:
        self.worker, self._rows, self._limit = worker, rows, limit
        self._queue: deque[_Waiting] = deque()
        self._drawn: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._number = 0
        self._seconds = 1.0  # of a batch, a running mean

    def __len__(self) -> int:
        """Number of pictures that wait or are being drawn."""
        return len(self._queue) + len(self._drawn)

    def submit(
        self, jobs: Sequence[Job], tell: Sequence[Callable[[StepSeen], None]] = ()
    ) -> list[asyncio.Future[Picture | Failed]]:
        """Queue jobs, all or none.

        Args:
            jobs: The jobs.
            tell: For each watched job, what is called with its steps, on the event loop.

        Raises:
            QueueFullError: There is no room.
        """
        if len(self) + len(jobs) > self._limit:
            raise QueueFullError(max(1, min(600, round(len(self) / self._rows * self._seconds))))
        waiting = [_Waiting(job, told) for job, told in zip_longest(jobs, tell)]
        self._queue.extend(waiting)
        self._wake.set()
        return [one.answer for one in waiting]

    def cancel(self, answers: Sequence[asyncio.Future[Picture | Failed]]) -> None:
        """Forget jobs. A batch that nobody waits for ends early."""
        for answer in answers:
            answer.cancel()
        self._queue = deque(one for one in self._queue if not one.answer.cancelled())
        if self._drawn and all(one.answer.cancelled() for one in self._drawn):
            self.worker.cancel(self._number)

    async def run(self) -> None:
        """Draw for ever. What is being drawn when the worker dies fails with 503; what waits is drawn afterwards."""
        while True:
            if not self.worker.is_alive():
                await asyncio.to_thread(self.worker.restart)
            elif self._queue:
                await self._draw_batch()
            else:
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), WATCH)

    async def _draw_batch(self) -> None:
        shape = self._queue[0].job.shape if self._queue else None
        self._drawn = [one for one in self._queue if one.job.shape == shape][: self._rows]
        if not self._drawn:
            return
        self._queue = deque(one for one in self._queue if one not in self._drawn)
        self._number += 1
        began, loop = time.monotonic(), asyncio.get_running_loop()

        def tell(step: StepSeen) -> None:  # from another thread
            loop.call_soon_threadsafe(self._tell, step)

        answers: list[Picture | Failed]
        try:
            jobs = [one.job for one in self._drawn]
            answers = await asyncio.to_thread(self.worker.draw, self._number, jobs, tell)
            self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - began)
        except Exception as error:  # whatever it is, the next batch must be drawn
            if not isinstance(error, WorkerDiedError):
                log.exception("what the process answered could not be read; it is started again")
            await asyncio.to_thread(self.worker.join)
            answers = [Failed(503, "the process that draws died; it is started again") for _ in self._drawn]
        for one, answer in zip(self._drawn, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)
        self._drawn = []

    def _tell(self, step: StepSeen) -> None:
        for one in self._drawn:
            if one.tell is not None:
                one.tell(step)
