"""Annotated images, and readers for annotation files: JSON as a whole, JSON entry by entry, and JSON lines."""

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
LONGEST = 1 << 26  # characters; a longer entry is taken for a broken file


@dataclass(frozen=True)
class Annotation:
    """One annotated object as the file has it, not yet checked."""

    name: Any
    box: Any
    """(x0, y0, x1, y1) in pixels of the image, if the file is valid."""
    many: bool = False
    """Whether the box contains several objects of that name."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the objects in it."""

    id: str
    path: Path
    size: tuple[int, int]
    """Width and height in pixels."""
    annotations: Sequence[Annotation]
    relations: Mapping[tuple[int, int], Sequence[str]] = field(default_factory=dict)
    """Annotated predicates by the indices of subject and object in ``annotations``."""


def annotation_file(source: str, data: str | None, wanted: str) -> Path:
    """Return the path of an annotation file.

    Args:
        source: The name of the source, for the message.
        data: The path that the user gave.
        wanted: What the source reads, for the message.

    Raises:
        DataError: ``data`` is None or not a file.
    """
    if data is None:
        raise DataError(f"the source {source!r} reads {wanted}; give it with --data")
    path = Path(data)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; the source {source!r} reads {wanted}")
    return path


def image_folder(annotations: Path, places: Sequence[str]) -> Path:
    """Return the folder of the images that an annotation file describes.

    Args:
        annotations: The annotation file.
        places: Possible folders, relative to the folder of the file; the first one that exists is returned.

    Raises:
        DataError: None of them exists.
    """
    folders = [annotations.parent / place for place in places]
    for folder in folders:
        if folder.is_dir():
            return folder
    names = ", ".join(str(folder) for folder in folders)
    raise DataError(f"there is no folder of images for {annotations}; put or link the images to one of {names}")


def read_json(path: Path, *, without: str = "") -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        without: A key that is dropped from every JSON object to save memory.

    Raises:
        DataError: The file cannot be read or is not JSON.
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
    """Yield name and value of every member of a JSON file that is one large object, with one in memory at a time.

    If the file is broken after some members, iteration ends there, and the log names the last member.

    Args:
        path: The file.
        skipped: The log.

    Raises:
        DataError: The file cannot be read, or is broken before its first member ends.
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
    """Yield number (from 1) and JSON object of every line of a JSON-lines file.

    Blank lines are ignored; broken ones are logged.

    Args:
        path: The file.
        skipped: The log.

    Raises:
        DataError: The file cannot be read, or no line is a JSON object.
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
        raise DataError(f"{path} has no JSON object on any line; write one line for each image")


class _JsonStream:
    """Reads JSON values from a file piece by piece; the text ends at the first byte that is not UTF-8.

    ijson is not used: its memory grows with the square of the nesting depth, so a broken file can exhaust it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder()
        self._buffer, self._ended = "", False

    def peek(self) -> str:
        """Return the next character that is not white space, but do not consume it; "" at the end."""
        while True:
            self._buffer = self._buffer.lstrip()
            if self._buffer or self._ended:
                return self._buffer[:1]
            self._more()

    def expect(self, choices: str) -> str:
        """Consume the next character. Raises ValueError when it is not one of ``choices``."""
        character = self.peek()
        if not character or character not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, found {character or 'the end'}")
        self._buffer = self._buffer[1:]
        return character

    def value(self) -> Any:
        """Consume the next JSON value. A failed attempt doubles the buffer, so that long values take linear time."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer)
            except json.JSONDecodeError:
                if self._ended or len(self._buffer) > LONGEST:
                    raise
            else:
                if end < len(self._buffer) or self._ended:  # a number may go on in the next piece
                    self._buffer = self._buffer[end:]
                    return value
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
    """Convert a box from corner and size to (x0, y0, x1, y1).

    Args:
        x: The left edge in pixels.
        y: The top edge in pixels.
        width: Its width in pixels.
        height: Its height in pixels.

    Returns:
        The box; if a value is not a number, a list of five, which is no valid box but shows the values in the log.
    """
    if all(is_number(value) for value in (x, y, width, height)):
        return [x, y, x + width, y + height]
    return [x, y, width, height, "not four numbers"]


def annotated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the annotated width and height of an image; None if they are not positive integers."""
    if all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in (width, height)):
        return width, height
    return None


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a finite number that is small enough for a pixel coordinate."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"{path} is not valid JSON of the expected form ({reason}); it may be incomplete: download or make it again"
    )
