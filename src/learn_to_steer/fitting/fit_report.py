"""The report of a run of ``fit``: what was drawn, what was learned, and whether steering helps.

``report.json`` has the numbers. ``report.html`` shows the same with images in one file that needs no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.classifier.card import above_chance
from learn_to_steer.collection import Manifest
from learn_to_steer.collection.shards import PICTURES
from learn_to_steer.maps import Layout
from learn_to_steer.plain_text import printable
from learn_to_steer.report.html_pages import brief, read_figure, render
from learn_to_steer.result_rows import image_path, read_rows
from learn_to_steer.versions import installed_versions

PAIRS, DRAWN, DROPPED = 16, 24, 12  # images on the page, at most


def write_report(
    out: Path,
    settings: Mapping[str, Any],
    manifest: Manifest,
    metrics: Mapping[str, Any],
    collection: Path,
    trial: Path,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html``.

    Args:
        out: The folder to write to.
        settings: The settings of the run.
        manifest: The manifest of the collection.
        metrics: The metrics of the classifier, with ``trial`` (if there was one) and ``warnings``.
        collection: The folder of the collection.
        trial: The folder of the trial.

    Returns:
        The content of ``report.json``: ``warnings``; what was ``drawn`` and how much of it is usable, and why the rest
        is not; the ``classifier`` with its depth, accuracy and calibration; ``leakage``, how often the relation of a
        wrong prompt is predicted; the ``trial`` (None without one); ``settings`` and ``versions``.
    """
    held_out = metrics.get("test") or metrics["val"]
    report = {
        "model": settings["model"],
        "warnings": list(metrics["warnings"]),
        "drawn": drawn_facts(manifest),
        "classifier": {
            "depth": metrics["depths"]["chosen"],
            "layers": len(Layout.from_dict(manifest.layout).layers),
            "depths": metrics["depths"],
            "levels": manifest.levels,
            "classes": manifest.classes,
            **{name: held_out[name] for name in ("pictures", "accuracy", "accuracy_interval")},
            **{name: held_out[name] for name in ("per_level", "per_relation", "confusion")},
            "calibration": metrics["calibration"],
        },
        "leakage": leakage_facts(held_out),
        "trial": metrics.get("trial"),
        "settings": dict(settings),
        "versions": installed_versions("learn-to-steer", "torch", "diffusers"),
    }
    storage.write_json(out / "report.json", report)
    listed = {name.replace("_", " "): "-" if value is None else brief(value) for name, value in settings.items()}
    page = render(
        "fit.html",
        settings=listed,
        report=report,
        collection=collection.name,
        trial_figures=list(_trial_figures(trial, report["trial"])),
        drawn_figures=list(_drawn_figures(collection, manifest, True, DRAWN)),
        dropped_figures=list(_drawn_figures(collection, manifest, False, DROPPED)),
    )
    storage.write_atomic(out / "report.html", page)
    return report


def leakage_facts(held_out: Mapping[str, Any]) -> dict[str, Any]:
    """Return how often the relation of a wrong prompt is predicted.

    Args:
        held_out: The metrics on the held-out images.

    Returns:
        The leakage probe, and how much is ``above_chance``; None if no prompt names a wrong relation.
    """
    probe = held_out["leakage"]["both"]
    return {**probe, "above_chance": above_chance(probe)}


def drawn_facts(manifest: Manifest) -> dict[str, Any]:
    """Count what the model drew.

    Args:
        manifest: The manifest of the collection.

    Returns:
        The number of ``images``, and how many are ``usable``; for each reason how many images (``dropped``) and pairs
        of objects (``skipped``) are not; the ``pairs`` by relation; the share of relation words that the model
        ``obeyed`` (None if none is seen), and whether wrong words were read, too (``contrast``); the ``objects`` and
        the number of ``rows`` to learn from.
    """
    drawn = manifest.drawn
    return {
        "images": drawn["pictures"],
        "usable": sum(manifest.counts["pictures"].values()),
        "dropped": _by_number(manifest.counts["dropped"]),
        "skipped": _by_number({reason: case["count"] for reason, case in manifest.skipped.items()}),
        "pairs": {name: drawn["labels"].get(name, 0) for name in manifest.classes},
        "obeyed": drawn["obeyed"] / drawn["words"] if drawn["words"] else None,
        "contrast": drawn["contrast"],
        "objects": drawn["objects"],
        "detectors": drawn["detectors"],
        "rows": manifest.counts["rows"],
    }


def _by_number(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _drawn_figures(collection: Path, manifest: Manifest, kept: bool, most: int) -> Iterator[dict[str, Any]]:
    """The first images that the model drew of which something can be used, or nothing."""
    entries = (
        entry
        for shard in manifest.shards
        for entry in storage.read_jsonl(collection / PICTURES / f"{shard}.jsonl", allow_torn=False)
        if any(pair["used"] for pair in entry["pairs"]) == kept
    )
    for entry in islice(entries, most):
        used = [f"{p['subject']} {p['relation']} {p['object']}" for p in entry["pairs"] if p["used"]]
        reasons = dict.fromkeys(p["reason"].removeprefix("pair: ") for p in entry["pairs"] if not p["used"])
        note = "; ".join(used or filter(None, reasons))
        about = {"right": None, "prompt": printable(entry["prompt"]), "note": printable(note)}
        yield read_figure(collection / PICTURES / entry["file"], entry["detections"][0]) | about


def _trial_figures(folder: Path, trial: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Pairs of images of the same noise, unsteered and steered."""
    if trial is None:
        return
    sides = [(folder / trial["folders"][name]) for name in ("unsteered", "steered")]
    for rows in list(zip(*(read_rows(side) for side in sides), strict=True))[:PAIRS]:
        yield {
            "prompt": printable(rows[0]["prompt"]),
            "images": [
                read_figure(image_path(side, row["index"], row["sample"]), row["boxes"], _objects(row))
                | {"right": row["correct"], "note": printable("right" if row["correct"] else row["reason"])}
                for side, row in zip(sides, rows, strict=True)
            ],
        }


def _objects(row: Mapping[str, Any]) -> list[str]:
    return [name for subject, _, reference in row.get("relations", []) for name in (subject, reference)]
