"""The pictures that can be fetched by URL: kept an hour, in a folder of bounded size."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from learn_to_steer.storage import write_atomic

LIFETIME = 3600.0  # seconds
CAPACITY, MOST_BYTES = 1000, 1 << 30
_ID = re.compile(r"[0-9a-f]{32}")


class PictureFolder:
    """A folder of PNG files with random names. Its files are removed by ``close``.

    Several servers may have the same folder. Each removes its own files, and reads those of all.

    Args:
        lifetime: Seconds that a picture is kept.
        capacity: Number of pictures that are kept; the oldest leave first.
        most_bytes: How many bytes they may have together, likewise.
        clock: Tells the time in seconds, as files have it.
        folder: The folder. None: a temporary one.
    """

    def __init__(
        self,
        lifetime: float = LIFETIME,
        capacity: int = CAPACITY,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
        folder: Path | None = None,
    ) -> None:
        self._lifetime, self._capacity, self._most_bytes, self._clock = lifetime, capacity, most_bytes, clock
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="learn-to-steer-", ignore_cleanup_errors=True)
            folder = Path(self._temporary.name)
        self._folder = folder
        self._kept: OrderedDict[str, tuple[float, int]] = OrderedDict()  # name -> when it was made, its bytes
        self._bytes = 0

    def add(self, png: bytes) -> str:
        """Keep a PNG file and return its id."""
        self.tidy()
        name = secrets.token_hex(16)
        write_atomic(self._path(name), png)
        self._kept[name] = self._clock(), len(png)
        self._bytes += len(png)
        while len(self._kept) > self._capacity or (self._bytes > self._most_bytes and len(self._kept) > 1):
            self._remove_oldest()
        return name

    def read(self, name: str) -> bytes | None:
        """Return the PNG file with an id; None if there is none, or none any more."""
        self.tidy()
        if not _ID.fullmatch(name):
            return None
        try:
            path = self._path(name)
            age = 0.0 if name in self._kept else self._clock() - path.stat().st_mtime
            return path.read_bytes() if age <= self._lifetime else None
        except FileNotFoundError:  # it was removed, by somebody who tidies temporary files or by its own server
            return None

    def tidy(self) -> None:
        """Remove what is too old."""
        while self._kept and self._clock() - next(iter(self._kept.values()))[0] > self._lifetime:
            self._remove_oldest()

    def close(self) -> None:
        """Remove the pictures, and the folder if it is temporary."""
        while self._kept:
            self._remove_oldest()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _remove_oldest(self) -> None:
        name, (_, size) = self._kept.popitem(last=False)
        self._bytes -= size
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"
