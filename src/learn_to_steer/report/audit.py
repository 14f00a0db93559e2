"""Compare the automatic score with labels by eye: a page to label on without seeing the verdicts, and the agreement.

Source: Learn-to-Steer paper, Table 10: the automatic score against a manual one on 100 images per setting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.statistics import clustered_interval, cohens_kappa, paired_interval

TEMPLATE = "audit_page.html"
CHOICES = {"right": "all as asked", "wrong": "objects there, misplaced", "missing": "an object is missing"}
REQUIRED = {"index", "sample", "prompt", "correct", "reason", "boxes"}


def audit_page(folder: str | Path, count: int = 100, seed: int = 0) -> Path:
    """Write ``audit.html`` into the folder of an evaluation.

    The page needs no server and no network. It keeps labels in the browser and saves them as ``labels.json``; boxes
    and verdicts are hidden until they are switched on.

    Args:
        folder: The folder that ``evaluate`` wrote.
        count: Number of images, drawn at random.
        seed: Seed of that draw.

    Returns:
        The page.

    Raises:
        DataError: The folder holds no evaluation, or an image is missing.
    """
    folder = Path(folder)
    rows = _load_rows(folder)
    chosen = [rows[n] for n in np.random.default_rng(seed).permutation(len(rows))[:count]]
    # Labels belong to these images in this place: the page of a remade folder starts without labels.
    key = hashlib.sha256(f"{folder.resolve()}{chosen}".encode()).hexdigest()[:12]
    source = files("learn_to_steer.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = Environment(autoescape=True, keep_trailing_newline=True).from_string(source)
    figures = [_figure(folder, row) for row in chosen]
    page = template.render(title=folder.resolve().name, key=key, choices=CHOICES, figures=figures)
    storage.write_atomic(folder / "audit.html", page)
    return folder / "audit.html"


def agreement(folder: str | Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """Compare labels with the automatic score of an evaluation; ``row_agreement`` on the rows in its folder."""
    return row_agreement(_load_rows(Path(folder)), labels)


def row_agreement(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, Any]:
    """Compare labels with the automatic score.

    Args:
        rows: Rows of ``results.jsonl``.
        labels: Image id (``image_id``) -> one of ``CHOICES``; only labelled images are compared.

    Returns:
        The number of ``pictures`` and shares of them: ``manual`` and ``automatic`` accuracy,
        ``automatic_minus_manual``, the ``same`` verdict, all with 95 % bootstrap intervals over prompts, and Cohen's
        ``kappa`` (None if it is undefined).

    Raises:
        DataError: There are no labels, or labels of other images or with other words.
    """
    by_id = {image_id(row): row for row in rows}
    if not isinstance(labels, Mapping):
        raise DataError("labels are one object, image -> label, as the page saves them")
    for name, label in labels.items():
        if name not in by_id or label not in CHOICES:
            raise DataError(f"{name!r}: {label!r} is no label of an image scored here; labels: {', '.join(CHOICES)}")
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
    """The name of an image in labels, such as "00353-0000": index of its prompt and number of the sample."""
    return f"{row['index']:05d}-{row['sample']:04d}"


def _load_rows(folder: Path) -> Sequence[dict[str, Any]]:
    path = folder / "results.jsonl"
    rows = storage.read_jsonl(path) if path.is_file() else []
    if not rows or not set(rows[0]) >= REQUIRED:
        raise DataError(f"{folder} holds no evaluation (results.jsonl); name the --out of evaluate")
    return rows


def _figure(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of one image."""
    path = Path("images") / f"{row['index']:05d}" / "samples" / f"{row['sample']:04d}.png"
    if not (folder / path).is_file():
        raise DataError(f"the image {folder / path} is missing; audit the folder that evaluate wrote")
    with Image.open(folder / path) as image:
        width, height = image.size
    return {
        "id": image_id(row),
        "path": path.as_posix(),
        "width": width,
        "height": height,
        "font_size": f"{height / 16:.1f}",
        "prompt": row["prompt"],
        "verdict": "right" if row["correct"] else row["reason"],
        "boxes": [_box(entry) for entry in row["boxes"]],
    }


def _box(entry: Mapping[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = entry["box"]
    return {
        "left": left,
        "top": top,
        "width": right - left,
        "height": bottom - top,
        "label": f"{entry['name']} {entry['score']:.2f}",
        "label_y": max(top - 2, 8),
    }
