"""The files that list pictures: read whole, entry by entry, or line by line."""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from learn_to_steer.errors import DataError
from learn_to_steer.sources._protocol import Skipped

CHUNK = 1 << 20  # bytes
LONGEST = 1 << 26  # characters of one entry; anything longer is not of the format


def annotation_file(source: str, data: str | None, wanted: str) -> Path:
    """``data`` as a path. Raises DataError, saying what is ``wanted``, when it is None or no file."""
    if data is None:
        raise DataError(f"the source {source!r} reads {wanted}; name it with --data")
    path = Path(data)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; the source {source!r} reads {wanted}")
    return path


def picture_folder(annotations: Path, places: Sequence[str]) -> Path:
    """The first of ``places``, seen from the annotations' folder, that exists. Raises DataError when none does."""
    folders = [annotations.parent / place for place in places]
    for folder in folders:
        if folder.is_dir():
            return folder
    names = ", ".join(str(folder) for folder in folders)
    raise DataError(f"no pictures are found for {annotations}; put or link them to one of {names}")


def whole(path: Path, *, without: str = "") -> Any:
    """The value of a JSON file, the key ``without`` dropped from every object to save memory.

    Raises DataError, in one line, for a file that cannot be read or is not JSON.
    """

    def lighter(value: dict[str, Any]) -> dict[str, Any]:
        value.pop(without, None)
        return value

    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=lighter)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def members(path: Path, skipped: Skipped) -> Iterator[tuple[str, Any]]:
    """Name and value of every member of a JSON file that is one big object, without holding it all.

    What comes after a broken spot cannot be found any more: that is counted once and named, and the members before it
    stand. Raises DataError, in one line, for a file that cannot be read or breaks before its first member.
    """
    good: str | None = None
    try:
        with path.open("rb") as file:
            text = _Text(file)
            text.expect("{")
            if text.peek() == "}":
                return
            while True:
                name = text.value()
                if not isinstance(name, str):
                    raise ValueError("names of members are strings")
                text.expect(":")
                yield name, text.value()
                good = name
                if text.expect(",}") == "}":
                    return
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if good is None:
            raise _unreadable(path, error) from error
        skipped.add("file: broken JSON, nothing after it was read", f"{path.name}, after the entry {good!r}")


def lines(path: Path, skipped: Skipped) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of every line of a JSON-lines file; broken lines are counted, blank ones passed over.

    Raises DataError, in one line, when the file cannot be read or none of its lines is an object.
    """
    good = False
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    skipped.add("line: not valid JSON", f"line {number}")
                    continue
                if not isinstance(row, dict):
                    skipped.add("line: not a JSON object", f"line {number}")
                    continue
                good = True
                yield number, row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not good:
        raise DataError(f"{path} holds no JSON object on any line; write one for each picture")


class _Text:
    """A file that is decoded piece by piece; it ends where its bytes are no text any more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder()
        self._buffer, self._ended = "", False

    def peek(self) -> str:
        """The next character that is not blank, left where it is; empty at the end."""
        while True:
            self._buffer = self._buffer.lstrip()
            if self._buffer or self._ended:
                return self._buffer[:1]
            self._more()

    def expect(self, choices: str) -> str:
        """Take the next character, one of ``choices``; ValueError for another one."""
        found = self.peek()
        if not found or found not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, found {found or 'the end'}")
        self._buffer = self._buffer[1:]
        return found

    def value(self) -> Any:
        """Take the next JSON value. Each failed try doubles what is read, so that a long value costs linear time."""
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._buffer)
            except json.JSONDecodeError:
                if self._ended or len(self._buffer) > LONGEST:
                    raise
            else:
                if end < len(self._buffer) or self._ended:  # a number may go on in the next piece
                    self._buffer = self._buffer[end:]
                    return found
            self._more()

    def _more(self) -> None:
        piece = self._file.read(max(CHUNK, len(self._buffer)))
        self._ended = not piece
        try:
            self._buffer += self._bytes.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            self._buffer += bytes(error.object[: error.start]).decode()
            self._ended = True


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} is not the JSON that was expected ({reason}); is it whole? Get or make it again")
