"""The tables of an evaluation's report: shares with their 95 % intervals, by group, and beside another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from learn_to_steer.report.html_pages import brief
from learn_to_steer.result_rows import row_key
from learn_to_steer.statistics import clustered_interval, paired_interval

Row = Mapping[str, Any]
Value = tuple[int, float]  # index of the prompt, value
MOST_GROUPS = 40  # groups of one kind; further ones are left out


def headline(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Compute the main shares of a run.

    Args:
        rows: Rows of ``results.jsonl``.

    Returns:
        ``name``, ``value`` and ``interval`` of each share that all rows tell.
    """
    names = {"correct": "right", "present": "all objects present", "once": "each object exactly once"}
    shares = []
    for key, name in names.items():
        values = [(row["index"], float(row[key])) for row in rows if row.get(key) is not None]
        if len(values) == len(rows):
            shares.append({"name": name, **_share(values)})
    return shares


def groups(rows: Sequence[Row], reference: Sequence[Row] | None = None) -> list[dict[str, Any]]:
    """Compute how often a run is right, for groups of its images or relations.

    Args:
        rows: Rows of ``results.jsonl``.
        reference: Rows of another run to compare with.

    Returns:
        The kinds of groups: ``title`` (empty for all images), the ``unit`` that is counted, ``rows``, and how many
        groups were ``left_out``. Each row has ``name``, ``count``, ``value``, ``interval``, ``present`` (None if
        unknown) and, where both runs have the same images, ``other`` and ``difference`` with its interval.
    """
    both = _pairs(rows, reference) if reference else []
    kinds: list[tuple[str, str, Callable[[Row], list[tuple[str, float, bool | None]]]]] = [
        ("", "images", lambda row: [("all images", float(row["correct"]), row.get("present"))]),
        (
            "by task",
            "images",
            lambda row: [(brief(row.get("tag") or "no tag", 60), float(row["correct"]), row.get("present"))],
        ),
        (
            "by number of relations",
            "images",
            lambda row: [(_counted(len(row.get("relations", []))), float(row["correct"]), row.get("present"))],
        ),
        ("by relation", "relations", _relations),
    ]
    tables = []
    for title, unit, parts in kinds:
        names: dict[str, None] = {}
        for row in rows:
            names |= dict.fromkeys(name for name, _, _ in parts(row))
        if title and len(names) < 2:
            continue
        chosen = sorted(names)[:MOST_GROUPS]
        table = [_group(name, rows, both, parts) for name in chosen]
        tables.append({"title": title, "unit": unit, "rows": table, "left_out": len(names) - len(chosen)})
    return tables


def changes(rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, Any]:
    """Count what differs between two runs on the images that both have.

    Args:
        rows: Rows of ``results.jsonl``.
        reference: Rows of the other run.

    Returns:
        The number of ``images``; how many became right (``gained``) and wrong (``lost``), and are ``both`` right or
        ``neither``; ``differences``: name, both shares and the difference with its interval.
    """
    both = _pairs(rows, reference)
    kinds = [(bool(row["correct"]), bool(other["correct"])) for row, other in both]
    found: dict[str, Any] = {
        "images": len(both),
        "gained": kinds.count((True, False)),
        "lost": kinds.count((False, True)),
        "both": kinds.count((True, True)),
        "neither": kinds.count((False, False)),
        "differences": [],
    }
    names = {"correct": "right", "present": "all objects present", "once": "each object exactly once"}
    for key, name in names.items():
        if both and all(row.get(key) is not None for pair in both for row in pair):
            here, there = ([float(pair[side][key]) for pair in both] for side in (0, 1))
            difference = paired_interval(here, there, [row["index"] for row, _ in both])
            shares = {"here": sum(here) / len(here), "there": sum(there) / len(there)}
            found["differences"].append({"name": name, **shares, "difference": difference})
    return found


def _group(
    name: str,
    rows: Sequence[Row],
    both: Sequence[tuple[Row, Row]],
    parts: Callable[[Row], list[tuple[str, float, bool | None]]],
) -> dict[str, Any]:
    members = [(row["index"], value, seen) for row in rows for its, value, seen in parts(row) if its == name]
    seen = [one for _, _, one in members]
    group: dict[str, Any] = {
        "name": name,
        "count": len(members),
        **_share([(index, value) for index, value, _ in members]),
        "present": None if None in seen else sum(map(bool, seen)) / len(seen),
        "other": None,
        "difference": None,
    }
    pairs = [
        (row["index"], one[1], two[1])
        for row, other in both
        for one, two in zip(parts(row), parts(other), strict=False)
        if one[0] == two[0] == name
    ]
    if pairs:
        prompts, here, there = zip(*pairs, strict=True)
        group["other"] = sum(there) / len(there)
        group["difference"] = paired_interval(here, there, prompts)
    return group


def _relations(row: Row) -> list[tuple[str, float, bool | None]]:
    relations, held = row.get("relations", []), row.get("held", [])
    if len(held) != len(relations):
        return []
    seen = [value is not None for value in row["on_axis"]] if "on_axis" in row else [None] * len(held)
    return [
        (brief(predicate, 60), float(one), there)
        for (_, predicate, _), one, there in zip(relations, held, seen, strict=True)
    ]


def _counted(number: int) -> str:
    return "1 relation" if number == 1 else f"{number} relations"


def _share(values: Sequence[Value]) -> dict[str, Any]:
    prompts, numbers = zip(*values, strict=True)
    return {"value": sum(numbers) / len(numbers), "interval": clustered_interval(numbers, prompts)}


def _pairs(rows: Sequence[Row], reference: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The rows of the images that both runs have, of the same prompt."""
    others = {row_key(row): row for row in reference}
    pairs = [(row, others[row_key(row)]) for row in rows if row_key(row) in others]
    return [(row, other) for row, other in pairs if row["prompt"] == other["prompt"]]
