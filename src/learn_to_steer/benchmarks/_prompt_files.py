"""Prompt files: read a user's own, write prompt sets, and read the pinned files that others publish."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from learn_to_steer import storage
from learn_to_steer.benchmarks.base import BenchmarkPrompt, geneval_line
from learn_to_steer.errors import DataError, PromptError
from learn_to_steer.plain_text import has_lone_surrogate
from learn_to_steer.prompts import Relation, locate, parse

DOWNLOAD = "download"
TIMEOUT = 60  # seconds


def load_file(path: str | os.PathLike[str]) -> list[BenchmarkPrompt]:
    """Read a user's prompts from lines like ``{"prompt": ..., "relations": [[subject, predicate, object], ...]}``.

    Where a line has no ``relations``, they are parsed from its prompt. The line becomes the metadata; what GenEval's
    layout needs is added.

    Args:
        path: A JSON-lines file.

    Returns:
        The prompts, numbered from 0.

    Raises:
        DataError: The file is missing, empty or malformed.
        PromptError: A prompt has no relation or an unknown predicate, or lacks an object of its relations. The
            message names the row; blank lines are not counted.
    """
    rows = storage.read_jsonl(path, allow_torn=False)
    if not rows:
        raise DataError(f"{path} holds no prompts; write one JSON object with a 'prompt' on each line")
    return [_prompt(index, row, f"{path}, row {index + 1}") for index, row in enumerate(rows)]


def _prompt(index: int, row: dict[str, Any], place: str) -> BenchmarkPrompt:
    text, given = row.get("prompt"), row.get("relations")
    if not isinstance(text, str):
        raise DataError(f"{place}: 'prompt' is {text!r}; it must be a string")
    if has_lone_surrogate(json.dumps(row, ensure_ascii=False)):
        raise DataError(f"{place} is not valid Unicode text (it holds half of a surrogate pair); write it anew")
    if given is not None and not isinstance(given, list):
        raise DataError(f"{place}: 'relations' is {given!r}; it must be a list of [subject, predicate, object]")
    try:
        relations = parse(text) if given is None else tuple(_relation(text, entry, place) for entry in given)
    except PromptError as error:
        raise PromptError(f"{place}: {error}") from error
    if not relations:
        raise PromptError(f"{place}: no spatial relation in {text!r}; reword it or give 'relations'")
    return BenchmarkPrompt(index, text, relations, geneval_line(text, relations) | row, parsed=given is None)


def _relation(text: str, entry: Any, place: str) -> Relation:
    if not (isinstance(entry, list) and len(entry) == 3 and all(isinstance(word, str) for word in entry)):
        raise DataError(
            f"{place}: the relation {entry!r} must be a list of three strings: [subject, predicate, object]"
        )
    return locate(text, Relation.from_text(" | ".join(entry)))


def export(sets: Mapping[str, Sequence[BenchmarkPrompt]], out: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Write prompt sets as files for other tools: ``<name>.jsonl``, ``<name>.txt`` and ``manifest.json``.

    A line of ``<name>.jsonl`` holds ``index``, ``prompt``, ``relations`` as [subject, predicate, object], GenEval's
    ``tag`` and ``include`` (``version`` 2, see ``geneval_line``), other metadata of the benchmark, and ``original``
    where its authors word the prompt differently. ``load_file`` reads the file if all prompts have relations. A line
    of ``<name>.txt`` is a prompt.

    Args:
        sets: Prompts by the name of their set.
        out: The folder to write into.

    Returns:
        The manifest: for each set the number of ``prompts``, and the ``sha256`` of both files.

    Raises:
        DataError: A file cannot be written.
    """
    manifest = {}
    for name, prompts in sets.items():
        texts = {
            f"{name}.jsonl": "".join(json.dumps(_line(prompt), ensure_ascii=False) + "\n" for prompt in prompts),
            f"{name}.txt": "".join(prompt.prompt + "\n" for prompt in prompts),
        }
        for file, text in texts.items():
            storage.write_atomic(Path(out) / file, text)
        hashes = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()}
        manifest[name] = {"prompts": len(prompts), "sha256": hashes}
    storage.write_json(Path(out) / "manifest.json", manifest)
    return manifest


def _line(prompt: BenchmarkPrompt) -> dict[str, Any]:
    relations = [relation.as_list() for relation in prompt.relations]
    line: dict[str, Any] = {"index": prompt.index, "prompt": prompt.prompt, "relations": relations, "version": 2}
    written = prompt.metadata["prompt"]
    original = {"original": written} if written != prompt.prompt else {}
    return line | original | {key: value for key, value in prompt.metadata.items() if key != "prompt"}


def published_lines(name: str, data: str | None, url: str, digest: str) -> list[str]:
    """Read a prompt file that others publish, and check that it is the pinned one.

    Args:
        name: Name of the benchmark, for messages.
        data: Path of the file, or "download" to download it once into the user's cache.
        url: Where the file is published.
        digest: SHA-256 of the lines that are returned, each with a newline at its end. So line ends do not matter.

    Returns:
        The lines without surrounding white space; blank lines are left out.

    Raises:
        DataError: The file cannot be read or downloaded, or has other lines.
    """
    file = url.rsplit("/", 1)[-1]
    if data is None:
        raise DataError(
            f"the benchmark {name} reads {file}; name it with --data FILE, or download it with --data download"
        )
    if data != DOWNLOAD:
        return _checked(_read(Path(data)), digest, data, f"give the {file} of {url}")
    cached = cache_folder() / f"{digest[:12]}-{file}"
    if cached.is_file():
        return _checked(_read(cached), digest, str(cached), "remove it and download it again")
    try:
        with urlopen(url, timeout=TIMEOUT) as response:
            content: bytes = response.read()
    except (OSError, HTTPException) as error:
        raise DataError(
            f"cannot download {url} ({error}); download it in another way and name it with --data FILE"
        ) from error
    lines = _checked(content, digest, url, "find the published file and name it with --data FILE")
    storage.write_atomic(cached, content)
    return lines


def cache_folder() -> Path:
    """The folder of downloads: ``learn-to-steer`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "learn-to-steer"


def _read(path: Path) -> bytes:
    storage.check_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name a readable file with --data FILE") from error


def _checked(content: bytes, digest: str, place: str, remedy: str) -> list[str]:
    lines = [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()]
    if hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest() != digest:
        raise DataError(f"{place} does not hold the published prompts (its SHA-256 differs); {remedy}")
    return lines
