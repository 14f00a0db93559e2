"""How far the detector and template matching agree with a person on steered images.

    learn-to-steer evaluate --model flux:emoji --benchmark geneval-position-val --limit 200 --images 1 --out RUN
    python training/detector_agreement.py --run RUN --sheets out/agreement     # sheets of 25 images, to label
    python training/detector_agreement.py --run RUN --labels LABELS.json

The sheets show prompts, and no verdict. ``LABELS.json`` maps the id that stands above an image to "right", "wrong" (all
objects are there, but misplaced), "missing" (an object is, or only a part of it is drawn) or, where a person cannot
tell, "unclear". The second call prints how often the verdicts of the detector ``emoji`` and of ``emoji-templates`` are
the label's, and every kind of difference; an unclear image counts as a difference. Intervals (95 %) are over prompts,
of which each has one image. ``--write`` keeps the numbers and the labels in docs/results/labelled.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.benchmarks import prompts
from learn_to_steer.evaluation.scoring import load_scorer
from learn_to_steer.report import Panel, image_pages
from learn_to_steer.result_rows import image_id, image_path
from learn_to_steer.statistics import clustered_interval, cohens_kappa

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results" / "labelled"
ACROSS, SIDE = 5, 192
CHOICES = ("right", "wrong", "missing", "unclear")
EYES = ("emoji", "emoji-templates")


def sheets(run: Path, rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write sheets of images with their ids and prompts, in the order of the rows."""
    out.mkdir(parents=True, exist_ok=True)
    panels = []
    for row in rows:
        image = Image.open(image_path(run, row["index"], row["sample"])).convert("RGB")
        panels.append(Panel(image, None, f"{image_id(row)}: {row['prompt'].removeprefix('a photo of ')}"))
    for number, page in enumerate(image_pages(panels, ACROSS, SIDE), 1):
        page.save(out / f"sheet-{number}.png")
    print(f"{len(rows)} images on sheets in {out}")


def verdicts(run: Path, rows: Sequence[dict[str, Any]], eye: str, benchmark: str) -> list[str]:
    """What a detector says of every image: "right", "wrong" or "missing"."""
    scorer = load_scorer(eye)
    known = {prompt.index: prompt for prompt in prompts(benchmark, scorer.vocabulary)}
    said = []
    for row in rows:
        image = Image.open(image_path(run, row["index"], row["sample"])).convert("RGB")
        prompt = known[row["index"]]
        score = scorer.score(prompt, scorer.detect([image], [prompt])[0])
        said.append("right" if score["correct"] else "wrong" if score["present"] else "missing")
    return said


def compared(labels: Sequence[str], said: Sequence[str]) -> dict[str, Any]:
    """Agreement of verdicts with labels, and the differences by kind."""
    right, found = [label == "right" for label in labels], [verdict == "right" for verdict in said]
    same = [label != "unclear" and a == b for label, a, b in zip(labels, right, found, strict=True)]
    images = range(len(labels))
    kinds = Counter(
        f"{verdict}, labelled {label}" for label, verdict in zip(labels, said, strict=True) if verdict != label
    )
    kappa = cohens_kappa(right, found)
    return {
        "right_by_verdict": float(np.mean(found)),
        "same_verdict": float(np.mean(same)),
        "same_verdict_interval": clustered_interval(same, images),
        "kappa": None if np.isnan(kappa) else kappa,
        "differences": dict(kinds.most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="--out of evaluate")
    parser.add_argument("--count", type=int, default=200, help="images")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="only write sheets to label")
    parser.add_argument("--labels", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="keep numbers and labels in docs/results/labelled")
    options = parser.parse_args()
    rows = [row for row in storage.read_jsonl(options.run / "results.jsonl") if row["sample"] == 0][: options.count]
    if options.sheets:
        sheets(options.run, rows, options.sheets)
        return
    if options.labels is None:
        raise SystemExit("name --sheets, to label images, or --labels, to compare")
    config = storage.read_json(options.run / "config.json")
    labels = storage.read_json(options.labels)
    unknown = sorted(set(labels.values()) - set(CHOICES))
    missing = [image_id(row) for row in rows if image_id(row) not in labels]
    if unknown or missing:
        raise SystemExit(f"{options.labels}: unknown labels {unknown}, no label for {missing[:5]}")
    given = [labels[image_id(row)] for row in rows]
    told: dict[str, Any] = {
        "images": len(rows),
        "right_by_label": float(np.mean([label == "right" for label in given])),
        "labels": dict(Counter(given).most_common()),
    }
    for eye in EYES:
        said = verdicts(options.run, rows, eye, config["benchmark"])
        told[eye] = compared(given, said)
        for row, label, verdict in zip(rows, given, said, strict=True):
            if label != verdict and eye == EYES[0]:
                print(f"{image_id(row)} {row['prompt']}: {eye} says {verdict}, the label {label}")
    for key, value in told.items():
        print(f"{key:16} {value}")
    if options.write:
        name = config["model"].replace(":", "-")
        stored = {"model": config["model"], "seed": config["seed"], "agreement": told, "labels": labels}
        storage.write_json(FOLDER / f"steered-{name}.json", stored)


if __name__ == "__main__":
    main()
