"""Compare the automatic score with manual labels: a page for labelling, and the agreement of the two.

The page hides the automatic scores, so that labels do not depend on them.

Source: Learn-to-Steer paper, Table 10: the automatic against a manual score on 100 images per setting.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.image_files import image_size
from learn_to_steer.plain_text import printable
from learn_to_steer.report.html_pages import figure, render
from learn_to_steer.result_rows import image_id, image_path, read_rows
from learn_to_steer.statistics import clustered_interval, cohens_kappa, paired_interval

CHOICES = {
    "right": "as the prompt says",
    "wrong": "all objects are there, but misplaced",
    "missing": "an object is missing",
}
REQUIRED = {"index", "sample", "prompt", "correct", "reason", "boxes"}


def audit_page(folder: str | Path, count: int = 100, seed: int = 0) -> Path:
    """Write ``audit.html`` into the folder of an evaluation.

    The page needs no server and no network. The browser stores the labels; a button saves them as ``labels.json``. The
    boxes and automatic scores are hidden until they are switched on.

    Args:
        folder: The folder that ``evaluate`` wrote.
        count: Number of images, selected at random.
        seed: Seed of that selection.

    Returns:
        The file of the page.

    Raises:
        DataError: The folder holds no evaluation, or an image is missing.
    """
    folder = Path(folder)
    rows = load_rows(folder)
    selected = [rows[n] for n in np.random.default_rng(seed).permutation(len(rows))[:count]]
    # The browser stores labels under this key and the page's address. If the images change, it starts without labels.
    key = hashlib.sha256(json.dumps(selected).encode()).hexdigest()[:12]
    figures = [_figure(folder, row) for row in selected]
    title = folder.resolve().name
    page = render(
        "audit.html",
        script="labels.js",
        linked=True,
        title=title,
        key=key,
        choices=json.dumps(CHOICES),
        figures=figures,
    )
    storage.write_atomic(folder / "audit.html", page)
    return folder / "audit.html"


def agreement(folder: str | Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """Compare labels with the automatic scores of an evaluation.

    Args:
        folder: The folder that ``evaluate`` wrote.
        labels: As in ``row_agreement``.

    Returns:
        As ``row_agreement``.

    Raises:
        DataError: The folder holds no evaluation, or as in ``row_agreement``.
    """
    return row_agreement(load_rows(Path(folder)), labels)


def row_agreement(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, Any]:
    """Compare labels with the automatic scores.

    Args:
        rows: Rows of ``results.jsonl``.
        labels: Id of an image (see ``image_id``) -> one of ``CHOICES``. Only labelled images are compared.

    Returns:
        The number of labelled images (``pictures``); the shares that are correct by the labels (``manual``) and by the
        automatic score (``automatic``), and their difference ``automatic_minus_manual``; the share in which both agree
        (``same``); Cohen's ``kappa`` (None if it is undefined). Intervals are 95 % bootstrap intervals over prompts.

    Raises:
        DataError: There are no labels, or a label is of another image or is none of ``CHOICES``.
    """
    by_id = {image_id(row): row for row in rows}
    if not isinstance(labels, Mapping):
        raise DataError("labels must be one JSON object, image -> label; name the labels.json that the page saves")
    for name, label in labels.items():
        if name not in by_id or not isinstance(label, str) or label not in CHOICES:
            raise DataError(
                f"{name!r}: {label!r} is no label of an image of this evaluation (labels: {', '.join(CHOICES)}); name "
                "the labels.json that its page saved"
            )
    if not labels:
        raise DataError("there are no labels; label images on the page and save them")
    manual = [label == "right" for label in labels.values()]
    automatic = [bool(by_id[name]["correct"]) for name in labels]
    prompts = [by_id[name]["index"] for name in labels]
    same = [a == b for a, b in zip(manual, automatic, strict=True)]
    kappa = cohens_kappa(manual, automatic)
    return {
        "pictures": len(labels),
        "manual": float(np.mean(manual)),
        "manual_interval": clustered_interval(manual, prompts),
        "automatic": float(np.mean(automatic)),
        "automatic_minus_manual": paired_interval(automatic, manual, prompts),
        "same": float(np.mean(same)),
        "same_interval": clustered_interval(same, prompts),
        "kappa": None if np.isnan(kappa) else kappa,
    }


def load_rows(folder: Path) -> Sequence[dict[str, Any]]:
    """Return the rows of an evaluation.

    Raises:
        DataError: The folder holds none, or a row lacks what pages show.
    """
    rows = read_rows(folder)
    if not rows or not all(row.keys() >= REQUIRED for row in rows):
        raise DataError(f"{folder} holds no evaluation (results.jsonl); name the --out of evaluate")
    return rows


def _figure(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The template's variables for one image."""
    path = image_path(folder, row["index"], row["sample"])
    if not path.is_file():
        raise DataError(f"the image {path} is missing; audit the folder that evaluate wrote")
    boxes = [entry | {"name": f"{entry['name']} {entry['score']:.2f}"} for entry in row["boxes"]]
    return {
        "id": image_id(row),
        "image": figure(path.relative_to(folder).as_posix(), image_size(path), boxes),
        "prompt": printable(row["prompt"]),
        "score": "right" if row["correct"] else printable(row["reason"]),
    }
