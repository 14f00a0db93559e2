"""Read and write files so that a killed process leaves no broken file, with errors that name the file.

A file is replaced at once (``atomic_files``). Rows of a JSON-lines file are appended one at a time; a row of which a
killed process wrote only a part is dropped by the next reader or writer.

Files that this package wrote itself are read with a ``schema``, a pydantic model or a dataclass: a value of another
type is an error that names file, line and field.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_to_steer.atomic_files import is_leftover, remove_leftovers, replacing
from learn_to_steer.errors import DataError
from learn_to_steer.plain_text import shown
from learn_to_steer.safe_parsing import StrPath, YamlMapping, parse_json, parse_yaml
from learn_to_steer.validation import validated

_SPECIAL_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

if TYPE_CHECKING:
    import torch

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
METADATA, DIGEST = "__metadata__", "sha256"  # the header of a safetensors file, and the digest in it
BLOCK = 1 << 20  # bytes read at a time
REPAIR, REPAIR_LINE = "repair or remove the file", "repair or remove the line"
LARGEST = 1 << 28  # bytes of a JSON file
LARGEST_OF_PEOPLE = 1 << 20  # bytes of a file that people write: options, or the config of a model
LONGEST_LINE = 1 << 24  # bytes of a row

__all__ = [
    "append_jsonl",
    "check_folder",
    "check_regular",
    "is_hub_id",
    "is_leftover",
    "jsonl_line",
    "load_tensors",
    "read_bytes",
    "read_json",
    "read_jsonl",
    "read_yaml",
    "remove_leftovers",
    "save_tensors",
    "sha256",
    "write_atomic",
    "write_json",
]


def write_atomic(path: StrPath, data: bytes | str) -> None:
    """Write a file so that it has its old or its new content, never a part of it. Missing folders are made.

    Args:
        path: The file.
        data: Bytes, or text to be encoded as UTF-8.

    Raises:
        DataError: The file cannot be written.
    """
    with replacing(Path(path)) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: StrPath, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Args:
        path: The file.
        value: The value.

    Raises:
        DataError: JSON cannot hold the value (NaN included), or the file cannot be written.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"cannot write {path} as JSON: {error}") from error
    write_atomic(path, _encoded(text + "\n"))


def read_json(
    path: StrPath, schema: Any = None, remedy: str = REPAIR, *, finite: bool = True, largest: int = LARGEST
) -> Any:
    """Return the value in a JSON file.

    Args:
        path: The file.
        schema: A pydantic model or a dataclass; the value is returned as an instance of it. None: any value is valid.
        remedy: What the user can do about a broken file, for the error message.
        finite: Whether to refuse NaN and infinite numbers, which are not JSON, though Python writes them.
        largest: The number of bytes above which a file is refused.

    Raises:
        DataError: The file cannot be read, is not valid JSON, or has a value that does not fit the schema; the message
            says where.
    """
    value = parse_json(read_bytes(path, largest), str(path), remedy, finite=finite)
    return value if schema is None else validated(value, schema, str(path), remedy)


def read_yaml(path: StrPath) -> YamlMapping:
    """Return the mapping in a YAML file; an empty file holds an empty one.

    Args:
        path: The file.

    Raises:
        DataError: The file cannot be read, or its content is none that ``parse_yaml`` accepts.
    """
    return parse_yaml(read_bytes(path, LARGEST_OF_PEOPLE), path)


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
        line = jsonl_line(row)
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot add a row to {path}: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _mend_tail(file.fileno())
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def jsonl_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line of a JSON-lines file, with its newline.

    Raises:
        TypeError: JSON has no such type.
        ValueError: A number is not finite.
    """
    return _encoded(json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: StrPath, schema: Any = None, *, allow_torn: bool = True) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, each a JSON object. Blank lines are skipped.

    Args:
        path: The file.
        schema: A pydantic model that every row must fit; None: any object is valid.
        allow_torn: Whether to drop a last line that has no newline and is not valid JSON, as a killed process leaves
            it. False for files that people write.

    Raises:
        DataError: The file cannot be read, or a line is broken; the message names its number.
    """
    check_regular(path)
    rows = []
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
                where = f"{path}, line {number}"
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{where}: it is longer than {LONGEST_LINE >> 20} MiB; {REPAIR_LINE}")
                if line.strip():
                    if allow_torn and not line.endswith(b"\n") and not _is_row(line):
                        break
                    rows.append(_row(line.rstrip(b"\r\n"), where))
                    if schema is not None:
                        validated(rows[-1], schema, where, REPAIR_LINE)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return rows


def read_bytes(path: StrPath, largest: int | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        largest: The number of bytes above which it is refused.

    Raises:
        DataError: The file cannot be read, is no regular file, or is too large.
    """
    check_regular(path)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read() if largest is None or size <= largest else b""
    except (OSError, ValueError) as error:  # ValueError: for example a name with a null character
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if largest is not None and size > largest:
        raise DataError(f"cannot read {path}: it is larger than {largest >> 20} MiB; name another file")
    return data


def save_tensors(
    path: StrPath,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    digest: bool = False,
) -> None:
    """Write tensors and a header to a safetensors file, atomically. Equal content gives equal bytes.

    Args:
        path: The file.
        tensors: The tensors by name.
        metadata: The header.
        digest: Whether to add a digest of the whole content to the header; ``load_tensors`` checks it.

    Raises:
        DataError: The file cannot be written.
    """
    from safetensors.torch import save

    data = memoryview(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    end = 8 + int.from_bytes(data[:8], "little")
    # The library writes the metadata in random order.
    header = {METADATA: dict(sorted((metadata or {}).items())), **json.loads(bytes(data[8:end]))}
    if digest:
        header[METADATA][DIGEST] = _digest(header, hashlib.sha256(data[end:]).hexdigest())
    head = _encoded(json.dumps(header, ensure_ascii=False, separators=(",", ":")))
    head += b" " * (-len(head) % 8)  # as the library aligns the tensors
    with replacing(Path(path)) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.write(data[end:])


def load_tensors(path: StrPath) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, on the CPU, and its header without the digest.

    Raises:
        DataError: The file is missing, incomplete, not a safetensors file, or does not match its digest.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not Path(path).is_file():
            raise DataError(f"{path} does not exist or is not a file; a safetensors file was expected there")
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a complete safetensors file ({reason}); make or download it again") from error
    digest = metadata.pop(DIGEST, None)
    if digest is not None and digest != _stored_digest(Path(path)):
        raise DataError(f"{path} is damaged: it does not match its own digest; make or download it again")
    return tensors, metadata


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


def _encoded(text: str) -> bytes:
    """JSON text as UTF-8. A surrogate without its other half becomes an escape, which JSON knows."""
    return text.encode("utf-8", "backslashreplace")


def _digest(header: Mapping[str, Any], data: str) -> str:
    """The digest of a safetensors file, from its header and the SHA-256 of its data."""
    metadata = {key: value for key, value in header[METADATA].items() if key != DIGEST}
    text = json.dumps({**header, METADATA: metadata}, sort_keys=True)
    return hashlib.sha256(f"{text}\n{data}".encode()).hexdigest()


def _stored_digest(path: Path) -> str:
    """The digest of what a safetensors file holds."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = hashlib.sha256()
        while block := file.read(BLOCK):
            data.update(block)
    return _digest(header, data.hexdigest())


def _row(line: bytes, where: str) -> dict[str, Any]:
    value = parse_json(line, where, REPAIR_LINE)
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON object was expected, not {shown(value)}; {REPAIR_LINE}")
    return value


def _is_row(tail: bytes) -> bool:
    """Whether the text after the last newline is a whole row without its newline."""
    try:
        _row(tail, "")
    except DataError:
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
