"""Replace files at once, and delete the temporary files of killed processes.

A file is written in its folder under a temporary name, ``.NAME.<12 hex digits>.tmp``, flushed to disk and renamed. The
temporary file is locked as long as its process lives. One that a killed process left is deleted by the next process
that writes the file, or by ``remove_leftovers``.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from learn_to_steer.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.tmp", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces another one when the block is left without an exception. Missing folders are made.

    Args:
        path: The file to replace; it may not exist yet.

    Yields:
        The new file, open for writing. Its permissions are those of the umask.

    Raises:
        DataError: The file cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent, path.name)
        temporary, file = _open_temporary(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: for example a name with a null character
        raise DataError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def is_leftover(name: str) -> bool:
    """Return whether a file's name is that of a temporary file of this package."""
    return LEFTOVER.fullmatch(name) is not None


def remove_leftovers(*folders: str | os.PathLike[str]) -> None:
    """Delete the temporary files that killed processes left in some folders, but none of a process that still runs.

    Args:
        folders: The folders; those that do not exist are skipped, and folders in them are not searched.
    """
    for folder in folders:
        _remove_leftovers(Path(folder))


def _open_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """A new locked file in the folder of ``path``, and its path."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        file = temporary.open("xb")
        # Another process may take the file for a leftover until it is locked.
        if _lock(file) and temporary.exists():
            return temporary, file
        file.close()


def _remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete the leftovers in a folder: all of them, or those of one file."""
    try:
        with os.scandir(folder) as entries:
            matches = [(entry, LEFTOVER.fullmatch(entry.name)) for entry in entries]
            found = [entry.path for entry, match in matches if match and name in (None, match["name"])]
    except OSError:
        return
    for path in found:
        with suppress(OSError):
            if not Path(path).is_file():  # a link to a file that does not exist, for example
                continue
            with open(path, "rb") as file:
                if _lock(file):
                    os.unlink(path)


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed or the process ends; False if another process has locked it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
