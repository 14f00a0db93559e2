"""Compare the automatic score with manual labels: a page for labelling, and the agreement of the two.

The page hides the automatic scores, so that labels do not depend on them.

Source: Learn-to-Steer paper, Table 10: the automatic against a manual score on 100 images per setting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.image_files import image_size
from learn_to_steer.plain_text import printable
from learn_to_steer.result_rows import read_rows
from learn_to_steer.statistics import clustered_interval, cohens_kappa, paired_interval

TEMPLATE = "audit_page.html"
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
    rows = _load_rows(folder)
    selected = [rows[n] for n in np.random.default_rng(seed).permutation(len(rows))[:count]]
    # The browser stores labels under this key. If the folder or its images change, the page starts without labels.
    key = hashlib.sha256(f"{folder.resolve()}{selected}".encode()).hexdigest()[:12]
    source = files("learn_to_steer.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = Environment(autoescape=True, keep_trailing_newline=True).from_string(source)
    figures = [_figure(folder, row) for row in selected]
    page = template.render(title=folder.resolve().name, key=key, choices=CHOICES, figures=figures)
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
    return row_agreement(_load_rows(Path(folder)), labels)


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


def image_id(row: Mapping[str, Any]) -> str:
    """The id of an image in labels, such as "00353-0000": index of its prompt and number of the image."""
    return f"{row['index']:05d}-{row['sample']:04d}"


def _load_rows(folder: Path) -> Sequence[dict[str, Any]]:
    rows = read_rows(folder)
    if not rows or not all(row.keys() >= REQUIRED for row in rows):
        raise DataError(f"{folder} holds no evaluation (results.jsonl); name the --out of evaluate")
    return rows


def _figure(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The template's variables for one image."""
    path = Path("images") / f"{row['index']:05d}" / "samples" / f"{row['sample']:04d}.png"
    if not (folder / path).is_file():
        raise DataError(f"the image {folder / path} is missing; audit the folder that evaluate wrote")
    width, height = image_size(folder / path)
    return {
        "id": image_id(row),
        "path": path.as_posix(),
        "width": width,
        "height": height,
        "font_size": f"{height / 16:.1f}",
        "prompt": printable(row["prompt"]),
        "score": "right" if row["correct"] else printable(row["reason"]),
        "boxes": [_box(entry) for entry in row["boxes"]],
    }


def _box(entry: Mapping[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = entry["box"]
    return {
        "left": left,
        "top": top,
        "width": right - left,
        "height": bottom - top,
        "label": printable(f"{entry['name']} {entry['score']:.2f}"),
        "label_y": max(top - 2, 8),
    }
