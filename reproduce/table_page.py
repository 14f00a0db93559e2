"""docs/tables.md and a CSV a table, from the lines and settings that docs/results/tables keeps of every row."""

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
OWN = ("compat", "official", "fixed")  # measures that the paper's numbers are to be compared with
PAGE = ROOT / "docs" / "tables.md"
FIELDS = (
    *("index", "sample", "prompt", "relations", "correct", "present", "once", "held", "on_axis", "reason", "scores"),
    *("passes", "checks", "converged", "seconds"),
)


def home(model: str) -> Path:
    return KEPT / model.replace(":", "-")


def place(model: str, row: Row, ending: str = "jsonl") -> Path:
    return home(model) / f"{row.name}.{ending}"


def lines(model: str, row: Row) -> list[dict[str, Any]]:
    path = place(model, row)
    return storage.read_jsonl(path) if path.exists() else []


def settings(model: str) -> dict[str, dict[str, Any]]:
    """What every kept row of ``model`` was made with, by the row's name."""
    return stored(home(model) / "rows.json")


def stored(path: Path) -> dict[str, Any]:
    return storage.read_json(path) if path.exists() else {}


def keep(model: str, row: Row, folder: Path, made: dict[str, Any]) -> None:
    """Keep a line of every picture that the evaluation in ``folder`` lists, and what it was ``made`` with."""
    counted = {(r["index"], r["sample"]): r for r in storage.read_jsonl(folder / "results.jsonl")}
    found = [json.dumps({key: counted[k].get(key) for key in FIELDS}) for k in sorted(counted)]
    if len(lines(model, row)) > len(found) and settings(model).get(row.name, {}).get("weights") == made["weights"]:
        raise SystemExit(f"{place(model, row)} holds more pictures than this run ({len(found)}): ask for no fewer")
    place(model, row).parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(place(model, row), "\n".join(found) + "\n")
    remember(model, row, made)


def refuse(model: str, row: Row, reason: str, made: dict[str, Any]) -> None:
    """Keep that ``row`` cannot be made on this model, and why."""
    place(model, row).parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(place(model, row), json.dumps({"refused": reason}) + "\n")
    remember(model, row, made)


def remember(model: str, row: Row, made: dict[str, Any]) -> None:
    # Read again: another process may do other rows.
    storage.write_json(home(model) / "rows.json", settings(model) | {row.name: made})


def remember_identical(model: str, benchmark: str, made: dict[str, Any]) -> None:
    """Keep that pictures of ``benchmark``, which asks for no relation, were to the bit as unsteered."""
    path = home(model) / "identical.json"
    storage.write_json(path, stored(path) | {benchmark: made})


def identical(model: str, benchmarks: set[str], known: dict[str, dict[str, Any]]) -> list[str]:
    """What the page says of pictures that steering left alone; ``known`` are the ``settings``."""
    found = stored(home(model) / "identical.json")
    now = {made["weights"] for made in known.values()}
    told = [
        f"`{name}` {found[name]['pictures']}"
        for name in sorted(benchmarks & set(found))
        if found[name]["weights"] in now
    ]
    shown = "Bit-identical with and without steering, each drawn in batches that also held a steered prompt: "
    return [f"{shown}{', '.join(told)} pictures.", ""] if told else []


def write(models: list[str]) -> None:
    page = ["# Tables", "", "Made by `reproduce/paper_tables.py --write`; what a row lacks has not been measured.", ""]
    known = {model: settings(model) for model in models}
    for number, table in tables().items():
        for model in models:
            page += section(number, table, model, known[model])
    storage.write_atomic(PAGE, "\n".join(page))


def section(number: str, table: Table, model: str, known: dict[str, dict[str, Any]]) -> list[str]:
    """One table of one model in Markdown, and as CSV beside the kept lines; nothing where nothing was measured.

    ``known`` are the model's ``settings``; rows that are not to be compared end it.
    """
    there = [row for row in table.rows if row.name in known]
    made = {known[row.name]["weights"] for row in there}
    ours = {
        str(known[row.name].get("steering")) for row in there if (row.objective, row.profile) == (LEARNED, "default")
    }
    if len(made) > 1 or len(ours) > 1:
        raise SystemExit(f"table {number} of {model} has rows of different weights or settings: make them anew")
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
    """The library's own words on what cannot run; a method that cannot at its schedule cannot in our loop either."""
    told = {}
    for row in table.rows if table.view == "accuracy" else ():
        mine = lines(model, row)
        if mine and "refused" in mine[0]:
            told[row.method, row.benchmark] = mine[0]["refused"]
    bullets = [f"- {method} on `{benchmark}`: {reason}" for (method, benchmark), reason in told.items()]
    return ["Cannot run on this model:", "", *bullets, ""] if told else []


def accuracy(model: str, row: Row) -> list[str] | None:
    """Cells of one method; None when there is nothing or it cannot run on this model."""
    mine = lines(model, row)
    if not mine or "refused" in mine[0]:
        return None
    found = summarise(mine)
    low, high = found["accuracy_interval"]
    where = found["accuracy_where_present"]
    cells = [str(found["images"]), f"{found['accuracy']:.2f} [{low:.2f}, {high:.2f}]"]
    cells += [difference(model, row, mine, BASE), difference(model, row, mine, LEARNED)]
    cells += [f"{found['both_present']:.2f}", "-" if where is None else f"{where:.2f}"]
    cells += ["-" if found["each_once"] is None else f"{found['each_once']:.2f}"]
    own = metrics(row.benchmark, mine) if row.benchmark.startswith(("multi-relation", "t2i-compbench")) else {}
    cells += [", ".join(f"{name} {own[name]:.2f}" for name in OWN if own.get(name) is not None)]
    return [*cells, f"{found['passes_per_image']:.1f}", f"{found['seconds_per_image']:.1f}"]


def difference(model: str, row: Row, mine: list[dict[str, Any]], other: str) -> str:
    """Share right minus that of ``other`` on the same pictures, with its interval."""
    theirs = lines(model, Row(other, row.benchmark))
    if not theirs or (row.objective == other and row.schedule == "default"):
        return ""
    mean, least, most = compare_rows(mine, theirs)["correct"]
    return f"{mean:+.2f} [{least:+.2f}, {most:+.2f}]"


def alike(model: str, row: Row) -> list[str] | None:
    """Similarity to the unsteered pictures and to those of other prompts; how the background differs and deviates."""
    path = place(model, row, "likeness.json")
    if not path.exists():
        return None
    found = storage.read_json(path)
    mean, low, high = found["similarity"]
    strangers = found["similarity_to_strangers"]
    cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]", "-" if strangers is None else f"{strangers:.3f}"]
    if "background" not in found:
        return [*cells, "-", "-", "-"]
    mean, low, high = found["background"]["difference"]
    cells += [f"{mean:.3f} [{low:.3f}, {high:.3f}]"]
    mean, low, high = found["background"]["deviation"]
    return [*cells, f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]", f"{found['background']['deviation_there']:.4f}"]


def relations(model: str, row: Row) -> list[str] | None:
    """Share of right pictures under each of the four relations."""
    mine = lines(model, row)
    if not mine or "refused" in mine[0]:
        return None
    found = summarise(mine)["per_relation"]
    return [f"{found[name]['accuracy']:.2f}" if name in found else "" for name in BASIC]


def by_eye(model: str, row: Row) -> list[str] | None:
    """The automatic score against the labels of labelled_rows.py."""
    path = LABELS / model.replace(":", "-") / f"{row.name}.json"
    if not path.exists():
        return None
    if storage.read_json(path.with_name("made.json"))[row.name] != settings(model)[row.name]:
        raise SystemExit(f"{path} labels other pictures than the row has now: label them anew")
    found = row_agreement(lines(model, row), storage.read_json(path))
    mean, low, high = found["automatic_minus_manual"]
    least, most = found["same_interval"]
    cells = [str(found["pictures"]), f"{found['manual']:.2f}", f"{found['automatic']:.2f}"]
    cells += [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", f"{found['same']:.2f} [{least:.2f}, {most:.2f}]"]
    return [*cells, "-" if found["kappa"] is None else f"{found['kappa']:.2f}"]


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
