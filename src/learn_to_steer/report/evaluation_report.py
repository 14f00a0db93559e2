"""The report of an evaluation: ``report.html``, one file with tables, images, curves and settings.

It is made from the files that ``evaluate`` wrote, so that it can be made again at any time, also for a folder of an
older version. What a folder does not have is left out, and the page says so.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.report.audit import CHOICES, load_rows
from learn_to_steer.report.evaluation_tables import changes, groups, headline
from learn_to_steer.report.html_pages import COLORS, brief, read_figure, render
from learn_to_steer.report.kept_maps import draw_strips
from learn_to_steer.result_rows import image_id, image_path, read_rows, row_key
from learn_to_steer.versions import installed_version

FILE = "report.html"
LARGEST = 8_000_000  # bytes of a page
FOR_IMAGES = 6_000_000  # of these, what images take at most; the rest is for text, boxes and curves
MOST = 400  # images of a run on a page
MOST_KINDS = 10  # filters
MOST_CURVES = COLORS
WIDTH, HEIGHT = 170, 60  # of a curve, in units of its drawing
DOUBLED = "doubled"
NAMES = {"wrong side": "wrong side", "missing": "missing", DOUBLED: "doubled"}
# Settings that say where files are, not what was measured.
PLACES = {"out", "against"}


@dataclass(frozen=True)
class _Other:
    """The run to compare with."""

    images: Path
    name: str
    rows: Mapping[tuple[int, int], Mapping[str, Any]]
    same_noise: bool


def write_report(folder: str | Path, against: str | Path | None = None) -> Path:
    """Write ``report.html`` into the folder of an evaluation.

    The page has at most ``LARGEST`` bytes. If there are too many images, it has those that changed against the other
    run and a random selection of the rest.

    Args:
        folder: The folder that ``evaluate`` wrote; the evaluation need not be finished.
        against: The folder of another evaluation to compare with. None: the one that this one was compared with, if it
            still exists.

    Returns:
        The page.

    Raises:
        DataError: A folder holds no evaluation, or a file in it is damaged.
    """
    folder = Path(folder)
    rows = sorted(load_rows(folder), key=row_key)
    summary = _read(folder / "summary.json")
    settings = _read(folder / "config.json") or summary.get("config", {})
    notes: list[str] = []
    if not summary:
        notes.append("This evaluation is not finished: it has no summary yet. The page shows the images so far.")
    other = _find_other(folder, settings, summary, against, notes)
    kinds = _kinds(rows)
    order, sampled = _selection(rows, other)
    threshold = _threshold(settings)
    images = _image_folder(folder, summary)
    figures: dict[tuple[int, int], dict[str, Any]] = {}
    used, missing = 0, 0
    for row in order:
        try:
            shown = _figure(images, row, other, kinds, threshold, image_id(row) in sampled)
        except DataError:
            missing += 1
            continue
        shown["maps"] = draw_strips(folder, image_id(row))
        size = sum(len(one["source"]) for one in [*(side["image"] for side in shown["sides"]), *shown["maps"]])
        if used + size > FOR_IMAGES or len(figures) == MOST:
            break
        used += size
        figures[row_key(row)] = shown
    if missing:
        notes.append(f"{missing} images are missing in {brief(images)} or cannot be read, and are not on this page.")
    constant: dict[str, Any] = {
        "title": _title(settings, folder),
        "facts": _facts(rows, settings, summary),
        "notes": notes,
        "headline": headline(rows),
        "costs": _costs(rows, summary),
        "groups": groups(rows, list(other.rows.values()) if other else None),
        "other": _comparison(rows, other) if other else None,
        "kinds": kinds,
        "curves": any(row.get("steps") for row in rows),
        "choices": json.dumps(CHOICES),
        "key": _key(rows),
        "settings": {name: brief(_value(value)) for name, value in _flat(settings) if name not in PLACES},
        "versions": {brief(name): brief(version) for name, version in summary.get("versions", {}).items()},
        "version": installed_version("learn-to-steer"),
        "learned": settings.get("objective") == "learned",
        "mapped": sum(bool(one["maps"]) for one in figures.values()),
    }
    chosen = list(figures)
    while True:
        listed = [figures[key] for key in sorted(chosen)]
        page = render(
            "evaluation.html",
            script="labels.js",
            figures=listed,
            left_out=len(rows) - len(listed) - missing,
            **constant,
        )
        if len(page.encode()) <= LARGEST or not chosen:
            break
        chosen = chosen[: int(len(chosen) * 0.8)]
    storage.write_atomic(folder / FILE, page)
    return folder / FILE


def _read(path: Path) -> dict[str, Any]:
    found = storage.read_json(path, dict[str, Any], "repair it, or run evaluate again") if path.is_file() else {}
    return dict(found)


def _title(settings: Mapping[str, Any], folder: Path) -> str:
    model, source = settings.get("model"), settings.get("benchmark") or settings.get("prompts")
    if not model or not source:
        return brief(folder.name, 100)
    return brief(f"{model} on {source if settings.get('benchmark') else Path(str(source)).name}", 160)


def _facts(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The line below the title."""
    loss = settings.get("objective")
    steered = {None: "", "none": "Not steered. ", "learned": "Steered by the learned classifier. "}.get(
        loss, f"Steered by the loss {brief(loss, 60)}. "
    )
    prompts = len({row["index"] for row in rows})
    judge = summary.get("judged_by", settings.get("judged_by", {}))
    name = judge.get("name") if isinstance(judge, Mapping) else None
    scored = f", scored by the detector {brief(name, 60)}" if name else ""
    seed = f", seed {brief(settings['seed'], 30)}" if "seed" in settings else ""
    return f"{steered}{prompts} prompts, {len(rows)} images{scored}{seed}."


def _find_other(
    folder: Path,
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    against: str | Path | None,
    notes: list[str],
) -> _Other | None:
    given = against
    if given is None:
        recorded = summary.get("against")
        given = recorded.get("folder") if isinstance(recorded, Mapping) else None
        if given is None:
            return None
        if not (Path(given) / "results.jsonl").is_file():
            notes.append(f"It was compared with {brief(given)}, which is no longer there.")
            return None
    other = Path(given)
    theirs = {row_key(row): {"reason": "", "boxes": []} | row for row in read_rows(other)}
    if not theirs:
        raise DataError(f"{other} holds no evaluation (results.jsonl); name the --out of evaluate")
    if other.resolve() == folder.resolve():
        raise DataError(f"{other} is the evaluation itself; name another folder to compare with")
    config = _read(other / "config.json")
    decisive = ("model", "seed", "sampling", "lora", "revision")
    same = bool(config) and all(config.get(name) == settings.get(name) for name in decisive)
    name = brief(other.name, 60)
    if name == brief(folder.name, 60):
        name = brief(given, 100)
    return _Other(_image_folder(other, _read(other / "summary.json")), name, theirs, same)


def _image_folder(folder: Path, summary: Mapping[str, Any]) -> Path:
    """The folder of a run's images, which for ``score`` is another one."""
    config = summary.get("config")
    pictures = config.get("pictures") if isinstance(config, Mapping) else None
    return Path(pictures) if isinstance(pictures, str) and not (folder / "images").is_dir() else folder


def _comparison(rows: Sequence[Mapping[str, Any]], other: _Other) -> dict[str, Any]:
    return {"name": other.name, "same_noise": other.same_noise, **changes(rows, list(other.rows.values()))}


def _kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The outcomes that occur, the most frequent failures first: for each its name and number of images."""
    found = Counter(kind for row in rows for kind in _outcomes(row) if kind != "right")
    kinds = {"right": {"id": "right", "name": "right", "count": sum(bool(row["correct"]) for row in rows)}}
    for number, (kind, count) in enumerate(found.most_common(MOST_KINDS)):
        kinds[kind] = {"id": f"k{number}", "name": brief(NAMES.get(kind, kind), 40), "count": count}
    return kinds


def _outcomes(row: Mapping[str, Any]) -> list[str]:
    """Right or the kinds of failure, and whether an object is there more often than it should be."""
    kinds = ["right"] if row["correct"] else [part.split(":", 1)[0] for part in row["reason"].split("; ") if part]
    if row.get("present") and row.get("once") is False:
        kinds.append(DOUBLED)
    return list(dict.fromkeys(kinds or ["wrong"]))


def _selection(rows: Sequence[Mapping[str, Any]], other: _Other | None) -> tuple[list[Mapping[str, Any]], set[str]]:
    """The rows in the order in which they are put on the page while there is room, and the ids of a random part.

    Labels have to be of a random part, or the agreement would be that of another set of images.
    """
    order = [rows[number] for number in np.random.default_rng(0).permutation(len(rows))]
    if len(rows) <= MOST or other is None:
        return order, {image_id(row) for row in rows}
    changed = [row for row in order if row_key(row) in other.rows and _changed(row, other.rows[row_key(row)])]
    taken = {image_id(row) for row in changed[: MOST // 2]}
    first = [row for row in order if image_id(row) in taken]
    rest = [row for row in order if image_id(row) not in taken]
    return [*first, *rest], {image_id(row) for row in order[: MOST // 2]}


def _changed(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(row["correct"]) != bool(other["correct"])


def _figure(
    folder: Path,
    row: Mapping[str, Any],
    other: _Other | None,
    kinds: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
    sampled: bool,
) -> dict[str, Any]:
    """The template's variables for an image, and for the other run's of the same prompt."""
    relations = row.get("relations", [])
    objects = list(dict.fromkeys(name for subject, _, reference in relations for name in (subject, reference)))
    classes = [kinds[kind]["id"] for kind in _outcomes(row) if kind in kinds]
    sides = [_side(folder, row, objects, "")]
    theirs = other.rows.get(row_key(row)) if other else None
    if other and theirs and theirs["prompt"] == row["prompt"]:
        sides[0]["title"] = "this run"
        try:
            sides.append(_side(other.images, theirs, objects, other.name))
        except DataError:
            sides[0]["title"] = f"this run; the image of {other.name} is missing"
        if _changed(row, theirs):
            classes.append("gained" if row["correct"] else "lost")
    return {
        "id": image_id(row),
        "classes": " ".join(classes if sampled else [*classes, "unsampled"]),
        "prompt": brief(row["prompt"]),
        "number": row["sample"],
        "sides": sides,
        "relations": [brief(" ".join(parts), 120) for parts in relations],
        "curves": _curves(row, threshold),
        "passes": row.get("passes"),
        "tries": row.get("tries"),
        "note": brief(row.get("note") or _verdict(row), 200),
    }


def _verdict(row: Mapping[str, Any]) -> str:
    """What a detector that looked at the image before it was scored did not like."""
    why = row.get("why") or ""
    return why if row.get("satisfied") is False and not why.startswith("classifier:") else ""


def _side(folder: Path, row: Mapping[str, Any], objects: Sequence[str], title: str) -> dict[str, Any]:
    image = read_figure(image_path(folder, *row_key(row)), row["boxes"], objects)
    image["right"] = bool(row["correct"])
    doubled = DOUBLED in _outcomes(row)
    outcome = "right" if row["correct"] else row["reason"] or "wrong"
    seen = ", ".join(f"{brief(box['name'], 40)} {box['score']:.2f}" for box in row["boxes"][:8]) or "nothing"
    return {
        "title": title,
        "image": image,
        "right": row["correct"],
        "outcome": brief(f"{outcome}; an object is doubled" if doubled else outcome, 200),
        "seen": seen,
    }


def _curves(row: Mapping[str, Any], threshold: float | None) -> dict[str, Any] | None:
    """The probability of each relation over the steered steps, as points of a drawing; None if it was not kept."""
    steps = [step for step in row.get("steps") or [] if step.get("probability")]
    if not steps:
        return None
    first, last = steps[0]["step"], steps[-1]["step"]
    width = max(last - first, 1)
    lines: list[dict[str, Any]] = []
    for number in range(min(len(steps[0]["probability"]), MOST_CURVES)):
        values = [(step["step"], step["probability"][number]) for step in steps if len(step["probability"]) > number]
        points = [
            (round((step - first) / width * WIDTH, 1), round((1 - min(max(value, 0.0), 1.0)) * HEIGHT, 1))
            for step, value in values
        ]
        lines.append({"points": points, "start": values[0][1], "end": values[-1][1]})
    return {
        "lines": lines,
        "first": first + 1,
        "last": last + 1,
        "goal": None if threshold is None else round((1 - threshold) * HEIGHT, 1),
    }


def _threshold(settings: Mapping[str, Any]) -> float | None:
    steering = settings.get("steering")
    value = steering.get("threshold") if isinstance(steering, Mapping) else None
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else None


def _costs(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """What an image costs, where it is known."""
    found = []
    for name, title, form in (
        ("passes_per_image", "iterations an image", "{:.1f}"),
        ("seconds_per_image", "seconds an image", "{:.2f}"),
    ):
        value = summary.get(name)
        if isinstance(value, int | float):
            found.append({"name": title, "value": form.format(value)})
    tries = [row.get("tries") or 1 for row in rows]
    if max(tries) > 1:
        found.append({"name": "tries an image", "value": f"{sum(tries) / len(tries):.2f}"})
    return found


def _flat(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Settings by name, those inside others with both names."""
    listed: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            listed += _flat(value, f"{before}{brief(name, 60)}.")
        elif value not in (None, (), [], {}):
            listed.append((before + brief(name, 60), value))
    return listed


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _key(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the labels belong to: a page about other images or boxes starts without labels."""
    listed = [[image_id(row), row["prompt"], row["boxes"]] for row in rows]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:12]
