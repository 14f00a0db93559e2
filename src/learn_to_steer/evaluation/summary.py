"""The numbers of an evaluation: accuracy with its interval, where it comes from, and what it cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from learn_to_steer.statistics import clustered_interval, paired_interval


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares over the images in ``rows`` (of results.jsonl); None where a share is of no image at all.

    ``accuracy_interval`` is the 95 % bootstrap interval, whole prompts drawn. ``each_once`` is the share of images with
    relations in which every object that they name was found exactly once (None where a row does not tell).
    ``accuracy_where_present`` and ``on_axis_where_present`` are of the images in which every object was found; the
    latter asks only for the right side of the prompted axis (as VISOR_cond does), where there is one. ``failures``
    counts images by reason; one image may have two. What an image cost is not known (None) of pictures made elsewhere.
    Raises ValueError when there are no rows.
    """
    if not rows:
        raise ValueError("a summary needs at least one image")
    correct = [bool(row["correct"]) for row in rows]
    present = [row for row in rows if row["present"]]
    placed = [row for row in rows if row["relations"]]
    told = all(row.get("once") is not None for row in placed)
    relations: dict[str, list[tuple[bool, bool | None]]] = defaultdict(list)
    for row in rows:
        for (_, predicate, _), held, on_axis in zip(row["relations"], row["held"], row["on_axis"], strict=True):
            relations[predicate].append((held, on_axis))
    low, high = clustered_interval(correct, [row["index"] for row in rows])
    failures = Counter(kind for row in rows for kind in _kinds(row["reason"]))
    return {
        "accuracy": _share(correct),
        "accuracy_interval": [low, high],
        "both_present": _share(bool(row["present"]) for row in rows),
        "each_once": _share(row["once"] for row in placed) if told else None,
        "accuracy_where_present": _share(row["correct"] for row in present),
        "on_axis_where_present": _share(all(row["on_axis"]) for row in present if row["on_axis"]),
        "prompts": len({row["index"] for row in rows}),
        "images": len(rows),
        "passes_per_image": _mean(rows, "passes"),
        "checks_per_image": _mean(rows, "checks"),
        "seconds_per_image": _mean(rows, "seconds"),
        "converged": _mean(rows, "converged"),
        "per_relation": {
            predicate: {
                "relations": len(verdicts),
                "accuracy": _share(held for held, _ in verdicts),
                "both_present": _share(on_axis is not None for _, on_axis in verdicts),
                "accuracy_where_present": _share(held for held, on_axis in verdicts if on_axis is not None),
                "on_axis_where_present": _share(on_axis for _, on_axis in verdicts if on_axis is not None),
            }
            for predicate, verdicts in sorted(relations.items())
        },
        "failures": dict(failures.most_common()),
    }


def _share(values: Iterable[bool]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean of a number that every row has; None when one lacks it."""
    values = [row.get(key) for row in rows]
    return None if None in values else sum(float(value) for value in values if value is not None) / len(rows)


def compared(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``rows`` minus ``others`` on the images (prompt and number) that both have, with 95 % intervals.

    ``correct`` and ``present``, and ``once`` where all of them know it, are [difference, low, high], whole prompts
    drawn. Raises ValueError when they share no image or one of the shared was made of another prompt.
    """
    theirs = {(row["index"], row["sample"]): row for row in others}
    pairs = [(row, theirs[row["index"], row["sample"]]) for row in rows if (row["index"], row["sample"]) in theirs]
    for mine, other in pairs:
        if mine["prompt"] != other["prompt"]:
            raise ValueError(f"number {mine['index']} is {mine['prompt']!r} here and {other['prompt']!r} there")
    if not pairs:
        raise ValueError("the two evaluations have no image in common")
    prompts = [mine["index"] for mine, _ in pairs]
    found: dict[str, Any] = {"images": len(pairs)}
    known = all(row.get("once") is not None for pair in pairs for row in pair)
    for key in ("correct", "present", "once") if known else ("correct", "present"):
        here, there = [float(a[key]) for a, _ in pairs], [float(b[key]) for _, b in pairs]
        found[key] = list(paired_interval(here, there, prompts))
    return found


def _kinds(reason: str) -> set[str]:
    """The kinds of failure in a reason: "missing", "wrong side", "ambiguous", "fused"."""
    return {part.split(":", 1)[0] for part in reason.split("; ") if part}
