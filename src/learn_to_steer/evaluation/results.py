"""The rows of ``results.jsonl``, one per image, and their summary: accuracy with its interval, failures, cost."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.result_rows import FILE
from learn_to_steer.statistics import clustered_interval
from learn_to_steer.versions import installed_versions

LIBRARIES = ("learn-to-steer", "torch", "diffusers", "transformers", "numpy", "pillow")
Row = dict[str, Any]
Key = tuple[int, int]  # index of the prompt, number of the image


def prompt_fields(prompt: BenchmarkPrompt, sample: int) -> Row:
    """The part of a row that identifies the image: its prompt and number."""
    return {
        "index": prompt.index,
        "sample": sample,
        "tag": prompt.metadata.get("tag", ""),
        "prompt": prompt.prompt,
        "relations": [relation.as_list() for relation in prompt.relations],
    }


def write_rows(folder: Path, rows: Mapping[Key, Row]) -> None:
    """Write ``results.jsonl``, sorted by prompt and number; an existing file is replaced."""
    storage.write_atomic(folder / FILE, b"".join(storage.jsonl_line(rows[key]) for key in sorted(rows)))


def prompts_digest(prompts: Sequence[BenchmarkPrompt]) -> str:
    """SHA-256 of the prompts, their numbers and relations."""
    listed = [[p.index, p.prompt, [relation.as_list() for relation in p.relations]] for p in prompts]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that results depend on."""
    return installed_versions(*LIBRARIES) | {"python": platform.python_version()}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Summarise a run.

    Args:
        rows: Rows of ``results.jsonl``.

    Returns:
        The summary by name. Shares of images, None if there are no such images:

        - ``accuracy``: the share of correct images; ``accuracy_interval`` is its 95 % bootstrap interval over prompts;
        - ``both_present``: every object was detected;
        - ``each_once``: of the images with relations, those in which each of their objects was detected exactly once
          (None if a row does not say);
        - ``accuracy_where_present`` and ``on_axis_where_present``: of the images in which every object was detected,
          those that are correct, and those whose objects lie on the correct side of each other by any amount, as in
          VISOR_cond.

        ``per_relation`` has the same shares for each predicate. ``failures`` is the number of images for each kind of
        failure; an image may have several kinds. ``passes_per_image`` (iterations), ``checks_per_image`` (evaluations
        without an update, apart from those in the pipeline's own forwards), ``seconds_per_image``, ``tries_per_image``
        and ``converged`` are means, None for images that other tools generated. ``prompts`` and ``images`` are their
        numbers. ``verifier`` compares what judged the images while they were drawn with their scores, None if nothing
        did: ``satisfied``, the share of images that satisfied it; ``agreement``, the share in which it says what the
        scores say (correct, and each object exactly once), with its ``agreement_interval``; ``precision``, the share of
        satisfactory images that are so by their scores, and ``recall``, the share of the latter that satisfied it.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("a summary needs at least one image, but there are no rows")
    correct = [bool(row["correct"]) for row in rows]
    present = [row for row in rows if row["present"]]
    with_relations = [row for row in rows if row["relations"]]
    exactly_one = [row.get("once") for row in with_relations]
    low, high = clustered_interval(correct, [row["index"] for row in rows])
    failures = Counter(kind for row in rows for kind in _failure_kinds(row["reason"]))
    return {
        "accuracy": _share(correct),
        "accuracy_interval": [low, high],
        "both_present": _share(bool(row["present"]) for row in rows),
        "each_once": None if None in exactly_one else _share(exactly_one),
        "accuracy_where_present": _share(row["correct"] for row in present),
        "on_axis_where_present": _share(all(row["on_axis"]) for row in present if row["on_axis"]),
        "prompts": len({row["index"] for row in rows}),
        "images": len(rows),
        "passes_per_image": _mean(rows, "passes"),
        "checks_per_image": _mean(rows, "checks"),
        "seconds_per_image": _mean(rows, "seconds"),
        "tries_per_image": _mean(rows, "tries"),
        "converged": _mean(rows, "converged"),
        "verifier": _verifier(rows),
        "per_relation": _per_relation(rows),
        "failures": dict(failures.most_common()),
    }


def _per_relation(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    outcomes: dict[str, list[tuple[bool, bool | None]]] = defaultdict(list)
    for row in rows:
        for (_, predicate, _), held, on_axis in zip(row["relations"], row["held"], row["on_axis"], strict=True):
            outcomes[predicate].append((held, on_axis))
    return {
        predicate: {
            "relations": len(pairs),
            "accuracy": _share(held for held, _ in pairs),
            "both_present": _share(on_axis is not None for _, on_axis in pairs),
            "accuracy_where_present": _share(held for held, on_axis in pairs if on_axis is not None),
            "on_axis_where_present": _share(on_axis for _, on_axis in pairs if on_axis is not None),
        }
        for predicate, pairs in sorted(outcomes.items())
    }


def _verifier(rows: Sequence[Row]) -> dict[str, Any] | None:
    judged = [row for row in rows if row.get("satisfied") is not None and row.get("once") is not None]
    if not judged:
        return None
    right = [bool(row["correct"] and row["once"]) for row in judged]
    satisfied = [bool(row["satisfied"]) for row in judged]
    same = [one == other for one, other in zip(right, satisfied, strict=True)]
    return {
        "images": len(judged),
        "satisfied": _share(satisfied),
        "agreement": _share(same),
        "agreement_interval": list(clustered_interval(same, [row["index"] for row in judged])),
        "precision": _share(one for one, chosen in zip(right, satisfied, strict=True) if chosen),
        "recall": _share(chosen for one, chosen in zip(right, satisfied, strict=True) if one),
    }


def _share(values: Iterable[bool | None]) -> float | None:
    known = [bool(value) for value in values]
    return sum(known) / len(known) if known else None


def _mean(rows: Sequence[Row], key: str) -> float | None:
    """The mean of a number that every row has; None if one lacks it."""
    values = [row.get(key) for row in rows]
    return None if None in values else sum(float(value) for value in values if value is not None) / len(rows)


def _failure_kinds(reason: str) -> list[str]:
    """The kinds of failure in a reason, once each: "missing", "wrong side", "ambiguous", "fused"."""
    return list(dict.fromkeys(part.split(":", 1)[0] for part in reason.split("; ") if part))
