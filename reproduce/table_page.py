"""Writes docs/tables.md and a CSV of each table, from the rows kept in docs/results/tables; used by paper_tables.py."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.benchmarks import metrics
from learn_to_steer.evaluation import compare_rows, summarise
from learn_to_steer.geometry import BASIC
from learn_to_steer.report.audit import row_agreement
from table_rows import BASE, LEARNED, Row, Table, tables

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "results" / "tables"
LABELS = ROOT / "docs" / "results" / "labelled"
OWN = ("compat", "official", "fixed")  # a benchmark's own measures, which the paper reports
PAGE = ROOT / "docs" / "tables.md"
FIELDS = (
    *("index", "sample", "prompt", "relations", "correct", "present", "once", "held", "on_axis", "reason", "scores"),
    *("passes", "checks", "converged", "seconds"),
)


def home(model: str) -> Path:
    """Return the folder of a model's rows."""
    return KEPT / model.replace(":", "-")


def place(model: str, row: Row, ending: str = "jsonl") -> Path:
    """Return a file of a row."""
    return home(model) / f"{row.name}.{ending}"


def lines(model: str, row: Row) -> list[dict[str, Any]]:
    """Return what is kept of a row's images, one dict per image; empty if the row was never made."""
    path = place(model, row)
    return storage.read_jsonl(path) if path.exists() else []


def settings(model: str) -> dict[str, dict[str, Any]]:
    """Return what each kept row of ``model`` was made with, by the row's name."""
    return stored(home(model) / "rows.json")


def stored(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty if there is none."""
    return storage.read_json(path) if path.exists() else {}


def keep(model: str, row: Row, folder: Path, made: dict[str, Any]) -> None:
    """Keep a line for each image of the evaluation in ``folder``, and what the row was ``made`` with."""
    results = {(r["index"], r["sample"]): r for r in storage.read_jsonl(folder / "results.jsonl")}
    kept = [json.dumps({key: results[k].get(key) for key in FIELDS}) for k in sorted(results)]
    if len(lines(model, row)) > len(kept) and settings(model).get(row.name, {}).get("weights") == made["weights"]:
        raise SystemExit(
            f"{place(model, row)} holds more images than this run ({len(kept)}): raise --limit or --images"
        )
    place(model, row).parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(place(model, row), "\n".join(kept) + "\n")
    remember(model, row, made)


def refuse(model: str, row: Row, reason: str, made: dict[str, Any]) -> None:
    """Keep the reason why ``row`` cannot be made on this model."""
    place(model, row).parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(place(model, row), json.dumps({"refused": reason}) + "\n")
    remember(model, row, made)


def remember(model: str, row: Row, made: dict[str, Any]) -> None:
    """Keep what a row was made with."""
    # Read again: another process may be making other rows.
    storage.write_json(home(model) / "rows.json", settings(model) | {row.name: made})


def remember_identical(model: str, benchmark: str, made: dict[str, Any]) -> None:
    """Keep that images of ``benchmark``, whose prompts have no relation, equal the unsteered ones to the bit."""
    path = home(model) / "identical.json"
    storage.write_json(path, stored(path) | {benchmark: made})


def identical(model: str, benchmarks: set[str], known: dict[str, dict[str, Any]]) -> list[str]:
    """Write the sentence about images that steering did not change; ``known`` are the model's ``settings``."""
    entries = stored(home(model) / "identical.json")
    weights = {made["weights"] for made in known.values()}
    counts = [
        f"`{name}` {entries[name]['pictures']}"
        for name in sorted(benchmarks & set(entries))
        if entries[name]["weights"] in weights
    ]
    text = "Bit-identical with and without steering, each drawn in batches that also held a steered prompt: "
    return [f"{text}{', '.join(counts)} pictures.", ""] if counts else []


def write(models: list[str]) -> None:
    """Write docs/tables.md with all tables of ``models``."""
    page = ["# Tables", "", "Made by `reproduce/paper_tables.py --write`. Empty cells have not been measured.", ""]
    known = {model: settings(model) for model in models}
    for number, table in tables().items():
        for model in models:
            page += section(number, table, model, known[model])
    storage.write_atomic(PAGE, "\n".join(page))


def section(number: str, table: Table, model: str, known: dict[str, dict[str, Any]]) -> list[str]:
    """Write one table of one model, in Markdown and as CSV; nothing if none of its rows was measured.

    ``known`` are the model's ``settings``. The script ends if the rows were not all made with the same weights and
    default settings, for then they cannot be compared.
    """
    there = [row for row in table.rows if row.name in known]
    made = {known[row.name]["weights"] for row in there}
    ours = {
        str(known[row.name].get("steering")) for row in there if (row.objective, row.profile) == (LEARNED, "default")
    }
    if len(made) > 1 or len(ours) > 1:
        raise SystemExit(f"table {number} of {model} has rows of different weights or settings: make them again")
    view = VIEWS[table.view]
    rows = [(row, cells) for row in there if (cells := view(model, row)) is not None]
    if not rows:
        return []
    below = refused(model, table) + identical(model, {row.benchmark for row in table.rows if table.plain}, known)
    paper = bool(table.paper)
    head = ["benchmark", "method", "schedule", *HEADS[table.view], *(["paper"] if paper else [])]
    body = []
    for row, cells in rows:
        # The paper ran every baseline at its own schedule.
        theirs = table.paper.get((row.benchmark, row.method), "") if row.schedule == "default" else ""
        body.append([row.benchmark, row.method, row.schedule, *cells, *([theirs] if paper else [])])
    with (KEPT / f"table-{number}-{model.replace(':', '-')}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *body])
    title = f"Table {number}: {table.title}" if number.isdigit() else table.title
    shown = ["| " + " | ".join(line) + " |" for line in body]
    shown = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *shown, ""]
    return [f"## {title}, {model}", "", *shown, *below]


def refused(model: str, table: Table) -> list[str]:
    """List the methods that cannot run on this model, with the library's error message."""
    reasons = {}
    for row in table.rows if table.view == "accuracy" else ():
        results = lines(model, row)
        if results and "refused" in results[0]:
            reasons[row.method, row.benchmark] = results[0]["refused"]
    bullets = [f"- {method} on `{benchmark}`: {reason}" for (method, benchmark), reason in reasons.items()]
    return ["Cannot run on this model:", "", *bullets, ""] if reasons else []


def accuracy(model: str, row: Row) -> list[str] | None:
    """Format the cells of a row; None if it was not measured or cannot run on this model."""
    results = lines(model, row)
    if not results or "refused" in results[0]:
        return None
    numbers = summarise(results)
    low, high = numbers["accuracy_interval"]
    where = numbers["accuracy_where_present"]
    cells = [str(numbers["images"]), f"{numbers['accuracy']:.2f} [{low:.2f}, {high:.2f}]"]
    cells += [difference(model, row, results, BASE), difference(model, row, results, LEARNED)]
    cells += [f"{numbers['both_present']:.2f}", "-" if where is None else f"{where:.2f}"]
    cells += ["-" if numbers["each_once"] is None else f"{numbers['each_once']:.2f}"]
    own = metrics(row.benchmark, results) if row.benchmark.startswith(("multi-relation", "t2i-compbench")) else {}
    cells += [", ".join(f"{name} {own[name]:.2f}" for name in OWN if own.get(name) is not None)]
    return [*cells, f"{numbers['passes_per_image']:.1f}", f"{numbers['seconds_per_image']:.1f}"]


def difference(model: str, row: Row, results: list[dict[str, Any]], other: str) -> str:
    """Format the accuracy minus that of the method ``other`` on the same prompts and noise, with its interval."""
    theirs = lines(model, Row(other, row.benchmark))
    if not theirs or (row.objective == other and row.schedule == "default"):
        return ""
    mean, least, most = compare_rows(results, theirs)["correct"]
    return f"{mean:+.2f} [{least:+.2f}, {most:+.2f}]"


def alike(model: str, row: Row) -> list[str] | None:
    """Format the similarity to the unsteered images and to those of other prompts, and the change of the background."""
    path = place(model, row, "likeness.json")
    if not path.exists():
        return None
    numbers = storage.read_json(path)
    mean, low, high = numbers["similarity"]
    strangers = numbers["similarity_to_strangers"]
    cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]", "-" if strangers is None else f"{strangers:.3f}"]
    if "background" not in numbers:
        return [*cells, "-", "-", "-"]
    mean, low, high = numbers["background"]["difference"]
    cells += [f"{mean:.3f} [{low:.3f}, {high:.3f}]"]
    mean, low, high = numbers["background"]["deviation"]
    return [*cells, f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]", f"{numbers['background']['deviation_there']:.4f}"]


def relations(model: str, row: Row) -> list[str] | None:
    """Format the accuracy on each of the four relations."""
    results = lines(model, row)
    if not results or "refused" in results[0]:
        return None
    numbers = summarise(results)["per_relation"]
    return [f"{numbers[name]['accuracy']:.2f}" if name in numbers else "" for name in BASIC]


def by_eye(model: str, row: Row) -> list[str] | None:
    """Format the agreement of the automatic score with the labels of labelled_rows.py."""
    path = LABELS / model.replace(":", "-") / f"{row.name}.json"
    if not path.exists():
        return None
    if storage.read_json(path.with_name("made.json"))[row.name] != settings(model)[row.name]:
        raise SystemExit(f"{path} has labels of other images than the row: label the row's images")
    numbers = row_agreement(lines(model, row), storage.read_json(path))
    mean, low, high = numbers["automatic_minus_manual"]
    least, most = numbers["same_interval"]
    cells = [str(numbers["pictures"]), f"{numbers['manual']:.2f}", f"{numbers['automatic']:.2f}"]
    cells += [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", f"{numbers['same']:.2f} [{least:.2f}, {most:.2f}]"]
    return [*cells, "-" if numbers["kappa"] is None else f"{numbers['kappa']:.2f}"]


VIEWS = {"accuracy": accuracy, "likeness": alike, "relations": relations, "labels": by_eye}
HEADS = {
    "accuracy": (
        *("images", "right [95 %]", "minus unsteered", "minus learned", "all present", "right where present"),
        *("each once", "its own measure", "passes", "s/image"),
    ),
    "likeness": (
        *("similarity [95 %]", "to other prompts' pictures", "background, difference [95 %]"),
        *("its deviation [95 %]", "unsteered"),
    ),
    "relations": BASIC,
    "labels": ("pictures", "right by eye", "automatically", "automatically - by eye", "same verdict [95 %]", "kappa"),
}
