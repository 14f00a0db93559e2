"""A page to label pictures by eye, blind to the automatic verdict, and the agreement of the two afterwards.

*Source:* paper, Table 10: the automatic score against a manual one on 100 pictures a setting.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.statistics import clustered_interval, cohens_kappa, paired_interval

CHOICES = {"right": "all as asked", "wrong": "objects there, misplaced", "missing": "an object is missing"}
PAGE = """<!doctype html>
<meta charset="utf-8"><title>Label $title</title>
<style>
 body{font:15px system-ui,sans-serif;margin:2rem;color:#1b1f24}
 main{display:grid;grid-template-columns:repeat(auto-fill,minmax(260px,1fr));gap:1.5rem}
 figure{margin:0;padding:.6rem;border:3px solid #c4cbd2;border-radius:6px}
 figure[data-label=right]{border-color:#2f9e44} figure[data-label=wrong]{border-color:#d6336c}
 figure[data-label=missing]{border-color:#e8940a}
 .picture{position:relative} img{width:100%;display:block}
 svg{position:absolute;inset:0;width:100%;height:100%;visibility:hidden} .told svg{visibility:visible}
 .verdict{visibility:hidden;color:#5f6b76} .told .verdict{visibility:visible}
 rect{fill:none;stroke:#1c7ed6;stroke-width:1.5;vector-effect:non-scaling-stroke}
 text{fill:#1c7ed6;paint-order:stroke;stroke:#fff;stroke-width:2px}
 button{margin:.2rem .2rem 0 0} header{position:sticky;top:0;background:#fff;padding:.5rem 0;z-index:1}
</style>
<header><b>$title</b>: is every object there, and where the prompt says? <span id="count"></span>
<button onclick="save()">Save labels.json</button>
<label><input type="checkbox" onchange="document.body.classList.toggle('told',this.checked)">
show the automatic verdicts (label first)</label></header>
<main>$figures</main>
<script>
 const key = "labels of " + $key, labels = JSON.parse(localStorage.getItem(key) || "{}");
 function show() {
  for (const f of document.querySelectorAll("figure")) f.dataset.label = labels[f.id] || "";
  document.getElementById("count").textContent = Object.keys(labels).length + " of $count labelled";
 }
 function put(id, label) { labels[id] = label; localStorage.setItem(key, JSON.stringify(labels)); show(); }
 function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(labels, null, 1)], {type: "application/json"}));
  link.download = "labels.json"; link.click();
 }
 show();
</script>
"""


def audit_page(folder: str | Path, count: int = 100, seed: int = 0) -> Path:
    """Write ``audit.html`` into the folder of an evaluation: ``count`` seeded pictures with boxes to be shown later.

    The page needs no server and no network; it keeps labels in the browser and saves them as labels.json. Raises
    DataError when the folder holds no evaluation or its pictures are elsewhere.
    """
    folder = Path(folder)
    rows = _rows(folder)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    figures = "\n".join(_figure(folder, rows[n]) for n in chosen)
    title = html.escape(folder.resolve().name)
    # Labels belong to these pictures in this place: a remade folder starts anew.
    digest = hashlib.sha256(f"{folder.resolve()}{[rows[n] for n in chosen]}".encode()).hexdigest()[:12]
    values = {"title": title, "key": json.dumps(digest), "count": str(len(chosen)), "figures": figures}
    page = Template(PAGE).substitute(values)
    storage.write_atomic(folder / "audit.html", page)
    return folder / "audit.html"


def agreement(folder: str | Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """The manual against the automatic score on the labelled pictures of an evaluation's folder: ``agreed``."""
    return agreed(_rows(Path(folder)), labels)


def agreed(scored: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, Any]:
    """The manual against the automatic score on the labelled ones of ``scored`` pictures.

    ``labels`` are picture id ("00353-0000") -> one of CHOICES. Shares, with 95 % intervals: ``manual`` and
    ``automatic`` accuracy and their paired difference, ``same`` verdicts, and Cohen's kappa (None when it is not
    defined). Raises DataError for labels of other pictures or other words.
    """
    rows = {picture_id(row): row for row in scored}
    if not isinstance(labels, Mapping):
        raise DataError("labels are one object, picture -> label, as the page saves them")
    for name, label in labels.items():
        if name not in rows or label not in CHOICES:
            raise DataError(f"{name!r}: {label!r} is no label of a picture scored here; labels: {', '.join(CHOICES)}")
    if not labels:
        raise DataError("there are no labels; label pictures on the page and save them")
    manual = [label == "right" for label in labels.values()]
    automatic = [bool(rows[name]["correct"]) for name in labels]
    prompts = [rows[name]["index"] for name in labels]
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


def picture_id(row: Mapping[str, Any]) -> str:
    """The name of a picture in labels, as "00353-0000": index of its prompt and number of the sample."""
    return f"{row['index']:05d}-{row['sample']:04d}"


def _rows(folder: Path) -> Sequence[dict[str, Any]]:
    path = folder / "results.jsonl"
    rows = storage.read_jsonl(path) if path.is_file() else []
    if not rows or not {"index", "sample", "prompt", "correct", "reason", "boxes"} <= set(rows[0]):
        raise DataError(f"{folder} holds no evaluation (results.jsonl); name the --out of evaluate")
    return rows


def _figure(folder: Path, row: Mapping[str, Any]) -> str:
    from PIL import Image

    path = Path("images") / f"{row['index']:05d}" / "samples" / f"{row['sample']:04d}.png"
    if not (folder / path).is_file():
        raise DataError(f"the picture {folder / path} is not there; audit the folder that evaluate wrote")
    with Image.open(folder / path) as picture:
        width, height = picture.size
    boxes = []
    for found in row["boxes"]:
        x, y, right, bottom = found["box"]
        name = html.escape(f"{found['name']} {found['score']:.2f}")
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{right - x}" height="{bottom - y}"/>'
            f'<text x="{x}" y="{max(y - 2, 8)}" font-size="{height / 16:.1f}">{name}</text>'
        )
    verdict = html.escape("right" if row["correct"] else row["reason"])
    buttons = "".join(
        f"<button title=\"{told}\" onclick=\"put('{picture_id(row)}', '{name}')\">{name}</button>"
        for name, told in CHOICES.items()
    )
    return (
        f'<figure id="{picture_id(row)}"><div class="picture"><img src="{path.as_posix()}" alt="">'
        f'<svg viewBox="0 0 {width} {height}">{"".join(boxes)}</svg></div>'
        f'<figcaption>{html.escape(row["prompt"])}<br>{buttons}<br><span class="verdict">{verdict}</span></figcaption>'
        "</figure>"
    )
