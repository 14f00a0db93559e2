"""Prompt files that others publish: from a path or their own address, and only when they are the pinned ones."""

from __future__ import annotations

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from learn_to_steer import storage
from learn_to_steer.errors import DataError

DOWNLOAD = "download"
TIMEOUT = 60  # seconds


def published_lines(name: str, data: str | None, url: str, digest: str) -> list[str]:
    """The lines of the file that the benchmark ``name`` reads, stripped, blank ones left out.

    ``data`` is its path, or "download" to get it from ``url`` once and keep it in the user's cache. ``digest``
    is the SHA-256 of these lines, each ended by a newline, so that line ends do not matter. Raises DataError
    when there is no file, no answer, or other lines than the published ones.
    """
    file = url.rsplit("/", 1)[-1]
    if data is None:
        raise DataError(f"the benchmark {name} reads {file}; name it with --data FILE, or get it with --data download")
    if data != DOWNLOAD:
        return _checked(_read(Path(data)), digest, data, f"give the {file} of {url}")
    kept = cache_folder() / f"{digest[:12]}-{file}"
    if kept.is_file():
        return _checked(_read(kept), digest, str(kept), "remove it and download it again")
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
    except (OSError, HTTPException) as error:
        raise DataError(
            f"cannot download {url} ({error}); get it by other means and name it with --data FILE"
        ) from error
    found = _checked(content, digest, url, "find the published file and name it with --data FILE")
    storage.write_atomic(kept, content)
    return found


def cache_folder() -> Path:
    """Where downloads are kept: ``learn-to-steer`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "learn-to-steer"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name the file with --data FILE") from error


def _checked(content: bytes, digest: str, place: str, remedy: str) -> list[str]:
    found = [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()]
    if hashlib.sha256("".join(line + "\n" for line in found).encode()).hexdigest() != digest:
        raise DataError(f"{place} does not hold the published prompts (its SHA-256 is another one); {remedy}")
    return found
