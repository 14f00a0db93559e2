"""docs/ablations.md: the classifier with other data, maps or inversion, one change at a time.

    python reproduce/ablations.py --ablation composition    # paper, Table 4: clean, cluttered or tidy images, leakage
    python reproduce/ablations.py --ablation aggregation    # paper, Table 9: all heads, layer means, one mean
    python reproduce/ablations.py --ablation inversion      # fixed-point against noise mixing
    python reproduce/ablations.py --ablation diagonals      # paper, C.6: eight relations
    python reproduce/ablations.py --write                   # only the page, from the numbers that are kept

Each row takes 5 to 10 minutes on two cores, and half an hour with fixed-point inversion. It collects maps, trains a
classifier, and steers the same validation prompts from the same noise (``diagonals``: the diagonals benchmark). Rows
that differ only in training share their maps. The fewer images pass the inversion, the more epochs there are, so that
all rows have about as many optimizer steps. A script that was stopped goes on where it was. Maps and images go to
out/ablations, numbers to docs/results/ablations/MODEL.json.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.collection import CollectConfig, collect
from learn_to_steer.evaluation import EvaluateConfig, ModelConfig, ScoreConfig, evaluate, score
from learn_to_steer.evaluation.model import open_pipeline
from learn_to_steer.model_names import named_variant
from learn_to_steer.training import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "results" / "ablations"
PAGE = ROOT / "docs" / "ablations.md"
MEASURED = ("accuracy", "accuracy_interval", "both_present", "accuracy_where_present", "passes_per_image", "images")
BASE = "unsteered"


@dataclass(frozen=True)
class Row:
    """One classifier.

    Attributes:
        name: In the table.
        maps: Fields of ``CollectConfig`` that differ from the defaults.
        training: Fields of ``TrainConfig`` that differ; ``epochs`` multiplies ``--epochs``.
    """

    name: str
    maps: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """One ablation.

    Attributes:
        title: In the docs.
        rows: The classifiers that are compared.
        benchmark: The prompts that are steered.
        share: Of ``--pictures``, which each row collects.
        paper: What the paper found on its models.
    """

    title: str
    rows: tuple[Row, ...]
    benchmark: str = "geneval-position-val"
    share: float = 1.0
    paper: str = ""


# Without wrong prompts there are half as many samples: twice the epochs give as many optimizer steps. Mirrored maps
# would contradict the trace of the relation word, so that nothing is augmented where leakage is measured.
TRUE, BOTH = {"prompts": "true", "augment": False, "epochs": 2}, {"augment": False, "epochs": 1}
# Noise mixing, but with the image sampled back from it, so that its PSNR is known; no image is left out.
MIXED: dict[str, Any] = {"inversion_settings": {"start": "noise"}, "quality": 0.0}
ABLATIONS = {
    "composition": Ablation(
        "Data composition and leakage (paper, Table 4)",
        tuple(
            Row(f"{source}, {what}", {"source": source}, training)
            for source in ("emoji-clean", "emoji-cluttered", "emoji", "emoji-tidy")
            for what, training in (("true prompts", TRUE), ("both prompts", BOTH))
        ),
        paper="FLUX.1-schnell, its validation prompts: both prompts .57, true prompts alone .425; real pictures alone "
        ".365, synthetic ones alone .373",
    ),
    "aggregation": Ablation(
        "Aggregation of the maps (paper, Table 9)",
        (
            Row("every head", {}),
            Row("mean of each layer", {"reduce": "layer-mean"}),
            Row("one mean", {"reduce": "mean"}),
        ),
    ),
    "inversion": Ablation(
        "From picture to noise",
        (
            Row("noise mixing", {"inversion": "noise"}),
            Row("fixed-point DDIM", {"inversion": "fixed-point"}),
            Row("noise mixing, sampled back", {"inversion": "fixed-point", **MIXED}),
        ),
        share=0.4,
    ),
    "diagonals": Ablation("Diagonals (paper, C.6)", (Row("eight relations", {"diagonals": True}),), "diagonals"),
}


def measure(name: str, options: argparse.Namespace) -> None:
    """Make the rows of an ablation and keep their numbers."""
    ablation, path = ABLATIONS[name], KEPT / f"{options.model.replace(':', '-')}.json"
    unknown = set(options.row or []) - {row.name for row in ablation.rows}
    if unknown:
        raise SystemExit(f"{name} has no rows {sorted(unknown)}; there are {[row.name for row in ablation.rows]}")
    stored = storage.read_json(path) if path.exists() else {}
    results = stored.setdefault(name, {})
    place = options.out / options.model.replace(":", "-")
    base = place / name / BASE
    results[BASE] = steered(options, base, ablation.benchmark, None)
    for row in ablation.rows:
        if options.row and row.name not in options.row:
            continue
        limit = int(options.pictures * ablation.share)
        # Rows with the same maps share them, across ablations too.
        settings = {"source": options.source} | row.maps
        defaults = vars(CollectConfig(options.model, source="emoji"))
        changes = {key: value for key, value in settings.items() if defaults[key] != value}
        variant = named_variant(options.model)
        changes |= {"levels": variant.levels} if variant and variant.levels else {}
        changes |= {"dtype": options.dtype or "float32", "seed": options.seed}
        maps = place / "maps" / " ".join([str(limit), *(f"{key}={value}" for key, value in sorted(changes.items()))])
        began = time.monotonic()
        quality = collected(options, maps, settings, limit)
        spent = {"collecting": time.monotonic() - began}
        began = time.monotonic()
        epochs = round(options.epochs * row.training.get("epochs", 1) * options.pictures / quality["kept"])
        folder = place / name / f"{row.name}, {limit} pictures, {epochs} epochs"
        if not (folder / "seconds.json").is_file():
            config = TrainConfig(**row.training | {"epochs": epochs, "seed": options.seed, "patience": epochs})
            train(maps, folder, config)
            storage.write_json(folder / "seconds.json", spent | {"training": time.monotonic() - began})
        summary = steered(options, folder / "steered", ablation.benchmark, folder)
        metrics = storage.read_json(folder / "metrics.json")
        probe = metrics.get("test", metrics["val"])
        results[row.name] = summary | {
            "leakage": probe["leakage"]["both"],
            "held_out_pictures": probe["pictures"],
            "inversion": quality,
            "against_base": against(folder / "steered", base),
            "seconds": storage.read_json(folder / "seconds.json"),
            "options": {"pictures": limit, "epochs": epochs, "source": settings["source"]}
            | {key: getattr(options, key) for key in ("limit", "seed", "dtype")},
        }
        held = probe["leakage"]["both"]["true_prompts"]
        print(f"{name}, {row.name}: held out {held:.3f}, steered {summary['accuracy']:.3f}", flush=True)
        storage.write_json(path, stored)


def collected(options: argparse.Namespace, maps: Path, settings: dict[str, Any], limit: int) -> dict[str, Any]:
    """Collect maps; return how many images were kept, and the inversion's mean quality under true and wrong prompts."""
    if not (maps / "manifest.json").is_file() or not storage.read_json(maps / "manifest.json")["complete"]:
        pipe, variant = open_pipeline(ModelConfig(model=options.model, dtype=options.dtype))
        config = CollectConfig(
            model=options.model,
            limit=limit,
            side=variant.resolution,
            levels=variant.levels,
            seed=options.seed,
            arguments={**variant.arguments, "guidance_scale": variant.guidance},
            **settings,
        )
        collect(pipe, maps, config)
    values: dict[str, list[float]] = defaultdict(list)
    for path in sorted((maps / "shards").glob("*.jsonl")):
        for line in storage.read_jsonl(path):
            if line["level"] == 0:
                values[line["kind"]].append(line["quality"])
    kept = sum(storage.read_json(maps / "manifest.json")["counts"]["pictures"].values())
    return {kind: sum(v) / len(v) for kind, v in values.items()} | {"kept": kept}


def steered(options: argparse.Namespace, out: Path, benchmark: str, classifier: Path | None) -> dict[str, Any]:
    """Generate and score images of validation prompts, steered by a classifier or unsteered."""
    config = EvaluateConfig(
        model=options.model,
        objective="none" if classifier is None else "learned",
        classifier=None if classifier is None else str(classifier),
        benchmark=benchmark,
        images=1,
        limit=options.limit,
        seed=options.seed,
        dtype=options.dtype,
        out=str(out),
        batch=16,
    )
    summary = evaluate(config)
    return {key: summary[key] for key in MEASURED}


def against(images: Path, base: Path) -> dict[str, Any]:
    """Compare steered images with the unsteered ones: similarity, and the background (paper, Fig. 10)."""
    out = images.with_name("against-base")
    comparison = score(ScoreConfig(str(images), against=str(base), similarity="emoji", out=str(out)))["against"]
    keys = ("correct", "present", "similarity", "similarity_to_strangers", "background")
    return {key: comparison[key] for key in keys if key in comparison}


def write() -> None:
    """Write docs/ablations.md, and a CSV of each table."""
    made_by = "Made by `reproduce/ablations.py --write`. Rows that are missing have not been measured."
    page = ["# Ablations", "", made_by, ""]
    for path in sorted(KEPT.glob("*.json")):
        stored = storage.read_json(path)
        for name, ablation in ABLATIONS.items():
            if name not in stored:
                continue
            head = ["", "pictures", "true word", "wrong word", "names it", "inversion", "steered right [95 %]"]
            head += ["all present", "passes", "similarity", "background, deviation", "minutes of training"]
            body = [cells(row, results) for row, results in stored[name].items()]
            page += [f"## {ablation.title}, {path.stem.replace('-', ':', 1)}", "", "| " + " | ".join(head) + " |"]
            page += ["|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in body), ""]
            page += [f"The paper: {ablation.paper}.", ""] if ablation.paper else []
            with (KEPT / f"{name}-{path.stem}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([head, *body])
    page += [
        "*true word*, *wrong word*: right on held-out pictures of the row's own source, all noise levels, under",
        "prompts with the true relation and with a wrong one; *names it*: how often the wrong word is the answer.",
        "*inversion*: its mean quality under true / wrong prompts; noise mixing: one-step error of the clean latent",
        "(lower is better), fixed-point: PSNR in dB (higher is better; pictures below its limit are left out).",
        "*similarity* to the unsteered picture, by features of the package's detector; *background*: standard",
        "deviation outside the objects' boxes, steered minus unsteered.",
        "",
    ]
    storage.write_atomic(PAGE, "\n".join(page))


def cells(name: str, results: dict[str, Any]) -> list[str]:
    """Format one line of a table."""
    low, high = results["accuracy_interval"]
    steering = [f"{results['accuracy']:.2f} [{low:.2f}, {high:.2f}]", f"{results['both_present']:.2f}"]
    steering += [f"{results['passes_per_image']:.1f}"]
    if "leakage" not in results:
        return [name, *[""] * 5, *steering, *[""] * 3]
    probe, quality, base = results["leakage"], results["inversion"], results["against_base"]
    background = base.get("background")
    return [
        name,
        f"{quality['kept']} of {results['options']['pictures']}",
        f"{probe['true_prompts']:.2f}",
        f"{probe['wrong_prompts']:.2f}",
        f"{probe['names_prompted_word']:.2f}",
        f"{quality['true']:.3g} / {quality['wrong']:.3g}",
        *steering,
        f"{base['similarity'][0]:.3f}",
        f"{background['deviation'][0]:+.4f}" if background else "",
        f"{results['seconds']['training'] / 60:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ablation", choices=list(ABLATIONS), action="append", help="may be repeated")
    parser.add_argument("--row", action="append", help="only these rows, e.g. 'emoji, true prompts'; may be repeated")
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--source", default="emoji", help="of rows that name none; use emoji-tidy for the flux models")
    parser.add_argument("--pictures", type=int, default=600, help="images collected for each row")
    parser.add_argument("--epochs", type=int, default=14, help="of a classifier trained on that many images")
    parser.add_argument("--limit", type=int, default=48, help="number of prompts that are steered")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    parser.add_argument("--write", action="store_true", help="only write docs/ablations.md")
    options = parser.parse_args()
    for name in options.ablation or []:
        measure(name, options)
    write()


if __name__ == "__main__":
    main()
