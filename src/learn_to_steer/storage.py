"""Read and write files so that a killed process leaves no broken file, with errors that name the file.

A file is written in its folder under a temporary name, flushed to disk and renamed. Rows of a JSON-lines file are
appended one at a time; a row of which a killed process wrote only a part is dropped by the next reader or writer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_to_steer.errors import DataError

_SPECIAL_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")

if TYPE_CHECKING:
    import torch

StrPath = str | os.PathLike[str]


def write_atomic(path: StrPath, data: bytes | str) -> None:
    """Write a file so that it has its old or its new content, never a part of it. Missing folders are made.

    Args:
        path: The file.
        data: Bytes, or text to be encoded as UTF-8.

    Raises:
        DataError: The file cannot be written.
    """
    with _replacing(Path(path)) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: StrPath, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Args:
        path: The file.
        value: The value.

    Raises:
        DataError: JSON cannot hold the value (NaN included), or the file cannot be written.
    """
    try:
        data = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot write {path} as JSON: {error}") from error
    write_atomic(path, data + b"\n")


def read_json(path: StrPath) -> Any:
    """Return the value in a JSON file.

    Raises:
        DataError: The file cannot be read, or is not valid JSON; the message says where.
    """
    try:
        return json.loads(_read_bytes(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: {_reason(error)}; repair or remove the file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_reason(error)}; repair or remove the file") from error


def append_jsonl(path: StrPath, row: Mapping[str, Any]) -> None:
    """Append one object to a JSON-lines file and flush it to disk. An incomplete last line is removed first.

    Args:
        path: The file.
        row: The object.

    Raises:
        DataError: JSON cannot hold the row (NaN included), or the file cannot be written.
    """
    path = Path(path)
    check_regular(path)
    try:
        line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot add a row to {path}: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _mend_tail(file.fileno())
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def read_jsonl(path: StrPath, *, allow_torn: bool = True) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, each a JSON object. Blank lines are skipped.

    Args:
        path: The file.
        allow_torn: Whether to drop a last line that has no newline and is not valid JSON, as a killed process leaves
            it. False for files that people write.

    Raises:
        DataError: The file cannot be read, or a line is broken; the message names its number.
    """
    lines = _read_bytes(path).split(b"\n")
    if allow_torn and not _is_row(lines[-1]):
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(_row(line))
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {_reason(error)}; repair or remove the line") from error
    return rows


def save_tensors(path: StrPath, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and a header to a safetensors file, atomically.

    Args:
        path: The file.
        tensors: The tensors by name.
        metadata: The header.

    Raises:
        DataError: The file cannot be written.
    """
    from safetensors.torch import save_file

    with _replacing(Path(path)) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, metadata=dict(metadata or {}))


def load_tensors(path: StrPath) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, on the CPU, and its header.

    Raises:
        DataError: The file is missing, incomplete, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise DataError(f"{path} does not exist or is not a file; a safetensors file was expected there")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a complete safetensors file ({reason}); make or download it again") from error


def sha256(path: StrPath) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises:
        DataError: The file cannot be read.
    """
    check_regular(path)
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def check_regular(path: StrPath) -> None:
    """Check that a file to be read is not a named pipe, device, socket or folder: reading one could wait forever.

    Args:
        path: The file, or a link to it. One that does not exist passes: opening it says so.

    Raises:
        DataError: It is none that can be read, or its name is none that a file can have.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # for example a name that is too long or holds a NUL
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _SPECIAL_FILES if test(mode)), "a special file")
        raise DataError(f"cannot read {path}: it is {kind}; name a regular file")


def check_folder(path: StrPath) -> None:
    """Check that ``path`` is a folder to write into, or can become one, before work that takes long. Makes no folder.

    Raises:
        DataError: It is not; the message says why.
    """
    path = Path(path)
    try:
        nearest = next(part for part in (path, *path.absolute().parents) if part.is_symlink() or part.exists())
        if not nearest.is_dir():
            raise DataError(f"cannot write into {path}: {nearest} is not a folder; name one")
    except (OSError, ValueError) as error:  # for example a folder without permission, or a name that is too long
        raise DataError(f"cannot write into {path}: {error}") from error
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"cannot write into {path}: {nearest} is not writable")


def is_hub_id(name: str) -> bool:
    """Return whether ``name`` has the form of a hub id, "owner/name". A folder's path may have it, too."""
    return HUB_ID.fullmatch(name) is not None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the same folder; on leaving, the file written there replaces ``path``."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # if the folder is a file, the error above says more
            temporary.unlink()


def _read_bytes(path: StrPath) -> bytes:
    check_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _row(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("a JSON object was expected")
    return value


def _is_row(tail: bytes) -> bool:
    """Whether the text after the last newline is a whole row without its newline."""
    try:
        _row(tail)
    except ValueError:
        return False
    return True


def _mend_tail(descriptor: int) -> None:
    """Make an open JSON-lines file end in a newline: add it to a whole last row, cut off an incomplete one."""
    end = os.fstat(descriptor).st_size
    start, tail = end, b""
    while start > 0 and b"\n" not in tail:
        step = min(start, 1 << 16)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    tail = tail[tail.rfind(b"\n") + 1 :]
    if _is_row(tail):
        os.write(descriptor, b"\n")
    elif tail:
        os.ftruncate(descriptor, end - len(tail))


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON, column {error.colno}: {error.msg}"
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
