"""Draws what the page asks for, through the server's own queue, and keeps track of how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from learn_to_steer.serve.dispatcher import Dispatcher
from learn_to_steer.serve.jobs import Failed, Job, Picture, StepSeen
from learn_to_steer.serve.pictures import PictureFolder

KEPT_STEPS = 12  # of a picture, evenly spaced
BETWEEN = 0.1  # seconds between two looks of the page


@dataclass
class Sheet:
    """One picture: how far it is, and what came of it.

    Attributes:
        job: What is drawn.
        steps: The denoising steps of the last try.
        name: Id of the finished picture in the folder; None before.
        steering: What steering did (``Picture.steering``).
        details: What else is known of the finished picture (``Picture.details``).
        error: Why there is no picture.
    """

    job: Job
    steps: list[StepSeen] = field(default_factory=list)
    name: str | None = None
    steering: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.name is not None or bool(self.error)

    @property
    def foreseen(self) -> bytes | None:
        """The latest picture foreseen, as JPEG file."""
        return next((step.picture for step in reversed(self.steps) if step.picture is not None), None)

    def add(self, step: StepSeen) -> None:
        """Enter a denoising step."""
        if self.steps and step.attempt != self.steps[-1].attempt:
            self.steps.clear()
        self.steps.append(step)

    def shown_steps(self) -> list[StepSeen]:
        """Return the steps to keep, evenly spaced, of those that have a picture or maps."""
        steps = [step for step in self.steps if step.picture is not None or step.maps]
        if len(steps) <= KEPT_STEPS:
            return steps
        return [steps[round(i * (len(steps) - 1) / (KEPT_STEPS - 1))] for i in range(KEPT_STEPS)]


async def draw_sheets(
    dispatcher: Dispatcher, pictures: PictureFolder, jobs: Sequence[Job], timeout: float
) -> AsyncIterator[list[Sheet]]:
    """Draw jobs, and yield all sheets whenever one of them got further. Ends what is under way when it is closed.

    Args:
        dispatcher: The server's queue.
        pictures: Where finished pictures are kept.
        jobs: What to draw.
        timeout: Seconds that all may take.

    Yields:
        The sheets, the same objects every time.

    Raises:
        QueueFullError: There is no room in the queue.
        TimeoutError: It took too long.
    """
    sheets = [Sheet(job) for job in jobs]
    changed = asyncio.Event()

    def told(sheet: Sheet, step: StepSeen) -> None:
        sheet.add(step)
        changed.set()

    tell: list[Callable[[StepSeen], None]] = [partial(told, sheet) for sheet in sheets]
    answers = dispatcher.submit(jobs, tell)
    for answer in answers:
        answer.add_done_callback(lambda _: changed.set())
    deadline = time.monotonic() + timeout
    try:
        while not all(sheet.is_done for sheet in sheets):
            yield sheets
            await asyncio.wait_for(changed.wait(), max(0.0, deadline - time.monotonic()))
            await asyncio.sleep(BETWEEN)
            changed.clear()
            for sheet, answer in zip(sheets, answers, strict=True):
                if answer.done() and not sheet.is_done:
                    _finish(sheet, answer.result(), pictures)
        yield sheets
    finally:
        dispatcher.cancel([answer for answer in answers if not answer.done()])


def _finish(sheet: Sheet, answer: Picture | Failed, pictures: PictureFolder) -> None:
    if isinstance(answer, Failed):
        sheet.error = answer.reason
    else:
        sheet.name, sheet.steering, sheet.details = pictures.add(answer.png), answer.steering, answer.details
