"""Test sets as files, for use outside this package: prompts in one wording, with what each asks for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt


def export(sets: Mapping[str, Sequence[BenchmarkPrompt]], out: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Write ``<name>.jsonl`` and ``<name>.txt`` (the prompts alone) of each set, and ``manifest.json``, into ``out``.

    A line holds ``index``, ``prompt``, ``relations`` as [subject, predicate, object], GenEval's ``tag`` and
    ``include`` (``version`` 2, see ``geneval_line``), what else the benchmark says, and ``original`` where its
    authors word the prompt otherwise. ``load_file`` reads sets whose prompts all have relations. Returns the
    manifest: number of prompts and SHA-256 of both files, by name. Raises DataError when a file cannot be written.
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
