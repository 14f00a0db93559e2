"""A worker for tests, which needs no model."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

from ray_stand_in import Dies

from learn_to_steer.errors import PromptError

log = logging.getLogger("learn_to_steer.toy")


class Toy:
    """Squares numbers. Other shards are "kill" (its worker, once), "always" (each of its workers) and "fail".

    Args:
        folder: Where it notes what it did.
        refuses: The text of an error that it is opened with; of workers but the first, if it begins with "later".
        kills: Whether the process is killed for real.
    """

    def __init__(self, folder: Path, refuses: str = "", kills: bool = False) -> None:
        self._folder, self._kills = folder, kills
        self._number = len(list(folder.glob("opened-*")))
        (folder / f"opened-{self._number}").touch()
        if refuses and (self._number or not refuses.startswith("later")):
            raise PromptError(refuses)
        log.warning("opened")

    def describe(self) -> str:
        return "toy"

    def run(self, work: Any) -> Any:
        marker = self._folder / "killed"
        if work == "always" or (work == "kill" and not marker.exists()):
            marker.touch()
            if self._kills:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Dies
        if work == "fail":
            raise ValueError("no such picture")
        return work * work if isinstance(work, int) else work


class OtherToy(Toy):
    """Each worker has other weights."""

    def describe(self) -> str:
        return f"toy {self._number}"
