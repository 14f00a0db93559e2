"""Annotation files: found, and read whole, entry by entry, or line by line; and what an annotated image is."""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from learn_to_steer.errors import DataError
from learn_to_steer.sources.base import SkipLog

CHUNK = 1 << 20  # bytes
LONGEST = 1 << 26  # characters of one entry; anything longer is not of the format


@dataclass(frozen=True)
class Annotation:
    """One annotated object as it stands in its file: nothing is checked yet."""

    name: Any
    box: Any
    """(x0, y0, x1, y1) in pixels of the image, if the file is right."""
    many: bool = False
    """Whether the box holds several objects of that name."""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with the objects in it."""

    id: str
    path: Path
    size: tuple[int, int]
    """Width and height in pixels."""
    annotations: Sequence[Annotation]
    relations: Mapping[tuple[int, int], Sequence[str]] = field(default_factory=dict)
    """Predicates that people wrote, by the indices of subject and object among ``annotations``."""


def annotation_file(source: str, data: str | None, wanted: str) -> Path:
    """Return ``data`` as a path. Raises DataError, which says what is ``wanted``, when it is None or no file."""
    if data is None:
        raise DataError(f"the source {source!r} reads {wanted}; name it with --data")
    path = Path(data)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; the source {source!r} reads {wanted}")
    return path


def image_folder(annotations: Path, places: Sequence[str]) -> Path:
    """Return the first of ``places``, relative to the file ``annotations``, that exists; DataError when none does."""
    folders = [annotations.parent / place for place in places]
    for folder in folders:
        if folder.is_dir():
            return folder
    names = ", ".join(str(folder) for folder in folders)
    raise DataError(f"no pictures are found for {annotations}; put or link them to one of {names}")


def read_json(path: Path, *, without: str = "") -> Any:
    """Return the value of a JSON file, with the key ``without`` dropped from every object to save memory.

    Raises DataError for a file that cannot be read or is not JSON.
    """

    def drop(value: dict[str, Any]) -> dict[str, Any]:
        value.pop(without, None)
        return value

    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=drop)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def iterate_members(path: Path, skipped: SkipLog) -> Iterator[tuple[str, Any]]:
    """Yield name and value of every member of a JSON file that is one large object, holding one at a time.

    When the file is broken somewhere, the members before that place stand, and ``skipped`` names the last of them.

    Raises DataError for a file that cannot be read or breaks before its first member.
    """
    last: str | None = None
    try:
        with path.open("rb") as file:
            text = _JsonStream(file)
            text.expect("{")
            if text.peek() == "}":
                return
            while True:
                name = text.value()
                if not isinstance(name, str):
                    raise ValueError("names of members are strings")
                text.expect(":")
                yield name, text.value()
                last = name
                if text.expect(",}") == "}":
                    return
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if last is None:
            raise _unreadable(path, error) from error
        skipped.add("file: broken JSON, nothing after it was read", f"{path.name}, after the entry {last!r}")


def iterate_lines(path: Path, skipped: SkipLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and object of every line of a JSON-lines file; blank lines are ignored, broken ones counted.

    Raises DataError when the file cannot be read or none of its lines is an object.
    """
    any_object = False
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
                any_object = True
                yield number, row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not any_object:
        raise DataError(f"{path} holds no JSON object on any line; write one for each picture")


class _JsonStream:
    """JSON values of a file that is decoded piece by piece; it ends at the first byte that is not UTF-8.

    Not ijson: its memory grows with the square of the depth of a file, so a broken one can exhaust it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder()
        self._buffer, self._ended = "", False

    def peek(self) -> str:
        """Return the next character that is not white space without taking it; "" at the end."""
        while True:
            self._buffer = self._buffer.lstrip()
            if self._buffer or self._ended:
                return self._buffer[:1]
            self._more()

    def expect(self, choices: str) -> str:
        """Take the next character; ValueError when it is not one of ``choices``."""
        found = self.peek()
        if not found or found not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, found {found or 'the end'}")
        self._buffer = self._buffer[1:]
        return found

    def value(self) -> Any:
        """Take the next JSON value. Each failed attempt doubles the buffer, so a long value takes linear time."""
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


def box_from_corner(x: Any, y: Any, width: Any, height: Any) -> list[Any]:
    """Return (x0, y0, x1, y1) of a box given by its corner and size; values that are no numbers stay as they are."""
    if all(is_number(value) for value in (x, y, width, height)):
        return [x, y, x + width, y + height]
    return [x, y, width, height, "not four numbers"]


def annotated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return width and height of an image as annotated; None where they are no positive whole numbers."""
    if all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in (width, height)):
        return width, height
    return None


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a finite number, and small enough to be a count of pixels."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} is not the JSON that was expected ({reason}); is it whole? Get or make it again")
