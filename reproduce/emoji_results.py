"""The tables of docs/results.md: an emoji model steered and unsteered, on position, unseen objects, several relations.

    python reproduce/emoji_results.py --model sd:emoji                # 40 minutes on two cores (flux:emoji: 10)
    python reproduce/emoji_results.py --model sd:emoji --only seen    # one group of rows
    python reproduce/emoji_results.py --tables                        # only the tables, from the numbers that are kept

A script that was stopped goes on where it was. Images go to out/results (not committed), numbers to
docs/results/MODEL.json. Settings were never tuned on these benchmarks, but on geneval-position-val.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, compare_rows, evaluate
from learn_to_steer.placement import resolve_device
from learn_to_steer.report import contact_sheet
from learn_to_steer.result_rows import image_path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FORMS = ("3-2", "4-2", "4-3", "5-3")
KEPT = (
    *("accuracy", "accuracy_interval", "both_present", "accuracy_where_present", "on_axis_where_present"),
    *("prompts", "images", "passes_per_image", "checks_per_image", "seconds_per_image", "per_relation", "failures"),
)


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Attributes:
        group: Rows of one group have the same prompts and noise.
        what: "base" (unsteered), "steered", or "authors" (steered with the profile ``official``).
        benchmark: The prompts.
        images: Of each prompt.
        limit: Number of prompts; None for all.
        objective: The loss; "none" for unsteered.
        profile: The profile of steering settings.
    """

    group: str
    what: str
    benchmark: str
    images: int
    limit: int | None = None
    objective: str = "learned"
    profile: str = "default"

    @property
    def name(self) -> str:
        return f"{self.group}-{self.what}"


def rows() -> list[Row]:
    """Return all rows, in the order of the table."""
    listed = []
    for group, benchmark, images, limit in [
        ("seen", "geneval-position", 4, None),
        ("unseen", "unseen", 1, 200),
        *((f"multi-{form}", f"multi-relation-{form}", 1, 50) for form in FORMS),
        *((f"multi-unseen-{form}", f"multi-relation-unseen-{form}", 1, 50) for form in FORMS),
    ]:
        listed += [
            Row(group, "base", benchmark, images, limit, objective="none"),
            Row(group, "steered", benchmark, images, limit),
        ]
    # The authors' schedule takes more than eight times as long: fewer images, also for the rows it is compared with.
    listed += [
        Row("official", "base", "geneval-position", 1, 32, objective="none"),
        Row("official", "steered", "geneval-position", 1, 32),
        Row("official", "authors", "geneval-position", 1, 32, profile="official"),
    ]
    return listed


def run(model: str, row: Row, seed: int, device: str, dtype: str | None) -> dict[str, Any]:
    """Make or complete a row; return its numbers."""
    folder = ROOT / "out" / "results" / model.replace(":", "-") / row.name
    began = time.monotonic()

    def progress(done: int, of: int) -> None:
        left = (time.monotonic() - began) / max(done, 1) * (of - done)
        print(f"\r{row.name}: {done}/{of}  about {left / 60:.0f} min left   ", end="", flush=True)

    config = EvaluateConfig(
        model=model,
        objective=row.objective,
        profile=row.profile,
        benchmark=row.benchmark,
        images=row.images,
        limit=row.limit,
        seed=seed,
        out=str(folder),
        device=device,
        dtype=dtype,
        batch=16,
    )
    summary = evaluate(config, progress)
    print()
    base = folder.with_name(f"{row.group}-base") / "results.jsonl"
    result = {key: summary[key] for key in KEPT}
    if row.what != "base" and base.exists():
        difference = compare_rows(storage.read_jsonl(folder / "results.jsonl"), storage.read_jsonl(base))
        result |= {f"{key}_over_base": difference[key] for key in ("correct", "present")}
    if row.name == "seen-steered":
        show(folder, model)
    return result | {"benchmark": row.benchmark, "profile": row.profile, "objective": row.objective, "seed": seed}


def show(folder: Path, model: str) -> None:
    """Save a sheet of 64 steered images, first one of every prompt, then the next ones; green frames mean correct."""
    from PIL import Image

    listed = sorted(storage.read_jsonl(folder / "results.jsonl"), key=lambda r: (r["sample"], r["index"]))[:64]
    images = [Image.open(image_path(folder, r["index"], r["sample"])) for r in listed]
    path = DOCS / "results" / f"{model.replace(':', '-')}-64.png"
    contact_sheet(images, [bool(r["correct"]) for r in listed], 8).save(path)


def tables() -> None:
    """Write the numbers of all models between the markers of docs/results.md."""
    lines = []
    for path in sorted((DOCS / "results").glob("*.json")):
        stored = storage.read_json(path)
        if "rows" not in stored:  # written by bench_full_size.py
            continue
        machines = {result["machine"] for result in stored["rows"].values()}
        lines += [
            f"### {stored['model']}",
            "",
            f"`emoji_results.py --model {stored['model']}`; {'; '.join(sorted(machines))}.",
            "",
        ]
        lines += [
            "| prompts | | images | right [95 %] | all present | right where present | passes | s/image |",
            "|---|---|---|---|---|---|---|---|",
        ]
        ordered = [(row.name, stored["rows"][row.name]) for row in rows() if row.name in stored["rows"]]
        for name, result in ordered:
            group, what = name.rsplit("-", 1)
            low, high = result["accuracy_interval"]
            where = result["accuracy_where_present"]
            lines.append(
                f"| {group} | {what} | {result['images']} | {result['accuracy']:.2f} [{low:.2f}, {high:.2f}] "
                f"| {result['both_present']:.2f} | {'-' if where is None else f'{where:.2f}'} "
                f"| {result['passes_per_image']:.1f} | {result['seconds_per_image']:.1f} |"
            )
        lines.append("")
        for name, result in ordered:
            if "present_over_base" in result:
                mean, low, high = result["present_over_base"]
                lines.append(f"- {name}: all present, against the base: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append("")
    page = (DOCS / "results.md").read_text()
    head, rest = page.split("<!-- tables -->\n")
    _, tail = rest.split("<!-- end of tables -->")
    storage.write_atomic(
        DOCS / "results.md", f"{head}<!-- tables -->\n" + "\n".join(lines) + f"<!-- end of tables -->{tail}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--only", help="only rows whose name starts with this")
    parser.add_argument("--images", type=int, help="at most this many images of a prompt; a later run adds the rest")
    parser.add_argument("--limit", type=int, help="at most this many prompts; a later run adds the rest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    options = parser.parse_args()
    if not options.tables:
        path = DOCS / "results" / f"{options.model.replace(':', '-')}.json"
        device = resolve_device(options.device)
        machine = f"{torch.get_num_threads()} threads" if device == "cpu" else device
        machine = f"torch {torch.__version__}, {machine}, {options.dtype or 'float32'}"
        for row in rows():
            if row.name.startswith(options.only or ""):
                images = min(row.images, options.images or row.images)
                limit = min(filter(None, (row.limit, options.limit)), default=None)
                row = replace(row, images=images, limit=limit)
                result = run(options.model, row, options.seed, options.device, options.dtype)
                # Read again: another process may be making other rows.
                stored = storage.read_json(path) if path.exists() else {"model": options.model, "rows": {}}
                before = stored["rows"].get(row.name, {"images": 0})["images"]
                if result["images"] < before:
                    raise SystemExit(f"{path} has {before} images of {row.name}: make no fewer, or delete that entry")
                stored["rows"][row.name] = result | {"machine": machine}
                storage.write_json(path, stored)
    tables()


if __name__ == "__main__":
    main()
