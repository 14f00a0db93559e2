"""The paper's tables on a model that runs here: learned and handcrafted losses, unseen objects, several relations, ...

    python runs/paper_tables.py --table 1 --model sd:emoji           # hours on two cores; goes on where it stopped
    python runs/paper_tables.py --table 1 --limit 8 --images 1       # a small sample of the same rows
    python runs/paper_tables.py --write                              # docs/tables.md and CSV from what is there

Every method has the same prompts, noise, sampler and machine; baselines run at their published schedule and at ours
(``equal``: as many passes as it takes, at most as many as the learned loss may take). Pictures go to out/tables; of
every picture one line is kept in docs/results/tables, from which the tables are made. Numbers of the paper stand
beside ours where it has them; they are of other models, so what can be compared is the order of the rows.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from learn_to_steer import catalog, storage
from learn_to_steer.benchmarks import prompts
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation import (
    EvaluateConfig,
    Job,
    ModelConfig,
    ScoreConfig,
    compared,
    draw,
    evaluate,
    find_detector,
    open_model,
    score,
    summarise,
)
from learn_to_steer.geometry import BASIC
from learn_to_steer.prompts import parse

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "results" / "tables"
PAGE = ROOT / "docs" / "tables.md"
FIELDS = (
    *("index", "sample", "prompt", "relations", "correct", "present", "held", "on_axis", "reason"),
    *("passes", "checks", "converged", "seconds"),
)
BASE = "none"
PHRASED = ("multi-relation-3-2", "phrasing-and", "phrasing-same")
# GenEval position in the paper's Table 1, where it has it.
PAPER = {BASE: "SD1.4 .05, dev .20", "for-spatial": "SD1.4 .26, dev .49", "storm-released": "SD1.4 .18"}
PAPER |= {"initno": "SD1.4 .12", "for-unified, verified by emoji": "SD1.4 .30", "learned": "SD1.4 .36, dev .61"}
# Its Table 5: cosine similarity to the unsteered picture, DINO / CLIP.
PAPER_ALIKE = {"learned": "SD1.4 .736 / .801, dev .863 / .877"}


@dataclass(frozen=True)
class Row:
    """One method on one benchmark; ``verifier`` adds FOR's second stage."""

    objective: str
    benchmark: str = "geneval-position"
    profile: str = "default"
    verifier: str | None = None

    @property
    def method(self) -> str:
        return f"{self.objective}, verified by {self.verifier}" if self.verifier else self.objective

    @property
    def name(self) -> str:
        verified = [f"verified-by-{self.verifier}"] if self.verifier else []
        return "-".join([self.benchmark, self.objective, *verified, self.profile])


@dataclass(frozen=True)
class Table:
    """``plain`` tables have pictures without a relation: nothing may change there. ``view`` is what is shown."""

    title: str
    rows: tuple[Row, ...]
    plain: bool = False
    paper: dict[str, str] = field(default_factory=dict)
    view: Literal["accuracy", "likeness", "relations"] = "accuracy"


def tables() -> dict[str, Table]:
    handcrafted = [name for name in catalog.names("objectives") if name != "learned"]
    pairs = [Row(name, profile=profile) for name in handcrafted for profile in ("default", "equal")]
    # FOR's second stage: checked by the eye that also scores, so too good, and by one that sees half as much.
    pairs += [Row("for-unified", verifier=name) for name in ("emoji", "emoji-templates")]
    forms = [f"multi-relation-{kind}{form}" for kind in ("", "unseen-") for form in ("3-2", "4-2", "4-3", "5-3")]
    return {
        "1": Table(
            "Learned and handcrafted losses (GenEval position)", (Row(BASE), Row("learned"), *pairs), paper=PAPER
        ),
        "2": Table("Unseen objects", tuple(Row(name, "unseen") for name in (BASE, "learned", "for-spatial"))),
        "3": Table("Several relations", tuple(Row(name, form) for form in forms for name in (BASE, "learned"))),
        "5": Table(
            "How alike a picture stays to the unsteered one, and what becomes of its background (Fig. 10)",
            (Row(BASE), Row("learned"), *pairs),
            paper=PAPER_ALIKE,
            view="likeness",
        ),
        "6": Table("Each relation apart", (Row(BASE), Row("learned"), *pairs), view="relations"),
        "8": Table(
            "Beside layout guidance, which is given the boxes",
            (Row(BASE), Row("learned"), Row("layout-guidance"), Row("layout-guidance", profile="equal")),
        ),
        "phrasing": Table(
            "Two relations in other words (paper, 4.3)",
            tuple(Row(name, form) for form in PHRASED for name in (BASE, "learned")),
        ),
        "dense": Table(
            "One relation, plainly and as people write",
            tuple(Row(name, f"phrasing-{form}") for form in ("plain", "dense") for name in (BASE, "learned")),
        ),
        "7": Table(
            "Prompts without relations",
            tuple(Row(name, f"geneval-{task}") for task in ("counting", "two-object") for name in (BASE, "learned")),
            plain=True,
        ),
    }


def run(row: Row, options: argparse.Namespace, folder: Path) -> None:
    """Make and judge what is missing of ``row``, and keep a line a picture."""
    config = EvaluateConfig(
        model=options.model,
        objective=row.objective,
        profile=row.profile,
        verifier=row.verifier,
        benchmark=row.benchmark,
        images=options.images,
        limit=options.limit,
        seed=options.seed,
        dtype=options.dtype,
        out=str(folder),
        batch=16,
    )
    try:
        summary = evaluate(config, lambda done, of: print(f"\r{row.name}: {done}/{of}  ", end="", flush=True))
    except UnsupportedError as error:
        storage.write_atomic(kept(options.model, row), json.dumps({"refused": str(error)}) + "\n")
        print(f"{row.name}: {error}", flush=True)
        return
    counted = {(r["index"], r["sample"]): r for r in storage.read_jsonl(folder / "results.jsonl")}
    lines = [json.dumps({key: counted[k][key] for key in FIELDS}) for k in sorted(counted)]
    path = kept(options.model, row)
    if path.exists() and len(storage.read_jsonl(path)) > len(lines):
        raise SystemExit(f"{path} holds more pictures than this run ({len(lines)}): remove it, or ask for no fewer")
    storage.write_atomic(path, "\n".join(lines) + "\n")
    base = folder.with_name(Row(BASE, row.benchmark).name)
    if row.objective != BASE and row.benchmark == Row(BASE).benchmark and (base / "summary.json").is_file():
        out = str(folder.with_name(f"{folder.name}-likeness"))
        found = score(ScoreConfig(str(folder), against=str(base), similarity="emoji", out=out))["against"]
        storage.write_json(likeness(options.model, row), found)
    print(f"right {summary['accuracy']:.3f}, passes {summary['passes_per_image']:.1f}", flush=True)


def kept(model: str, row: Row) -> Path:
    return KEPT / model.replace(":", "-") / f"{row.name}.jsonl"


def likeness(model: str, row: Row) -> Path:
    return KEPT / model.replace(":", "-") / f"{row.name}.likeness.json"


def write(models: list[str]) -> None:
    """docs/tables.md, and one CSV a table beside the kept lines."""
    page = ["# Tables", "", "Made by `runs/paper_tables.py --write`; what a row lacks has not been measured.", ""]
    for number, table in tables().items():
        for model in models:
            view = VIEWS[table.view]
            rows = [(row, cells) for row in table.rows if (cells := view(model, row)) is not None]
            if not rows:
                continue
            head = ["benchmark", "method", "schedule", *HEADS[table.view], *(["paper"] if table.paper else [])]
            body = []
            for row, cells in rows:
                # The paper ran every baseline at its own schedule.
                paper = [table.paper.get(row.method, "") if row.profile == "default" else ""] if table.paper else []
                empty = [""] * (len(HEADS[table.view]) - len(cells))
                body.append([row.benchmark, row.method, row.profile, *cells, *empty, *paper])
            title = f"Table {number}: {table.title}" if number.isdigit() else table.title
            page += [f"## {title}, {model}", "", "| " + " | ".join(head) + " |"]
            page += ["|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in body), ""]
            with (KEPT / f"table-{number}-{model.replace(':', '-')}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([head, *body])
    storage.write_atomic(PAGE, "\n".join(page))


def accuracy(model: str, row: Row) -> list[str] | None:
    """Cells of one method; None when there is nothing, the reason alone when it cannot run on this model."""
    lines = stored(model, row)
    if not lines or "refused" in lines[0]:
        return ["-", f"(cannot run: {lines[0]['refused']})"] if lines else None
    found = summarise(lines)
    low, high = found["accuracy_interval"]
    against = ""
    base = stored(model, Row(BASE, row.benchmark))
    if row.objective != BASE and base:
        mean, least, most = compared(lines, base)["correct"]
        against = f"{mean:+.2f} [{least:+.2f}, {most:+.2f}]"
    where = found["accuracy_where_present"]
    cells = [str(found["images"]), f"{found['accuracy']:.2f} [{low:.2f}, {high:.2f}]", against]
    cells += [f"{found['both_present']:.2f}", "-" if where is None else f"{where:.2f}"]
    return [*cells, f"{found['passes_per_image']:.1f}", f"{found['seconds_per_image']:.1f}"]


def alike(model: str, row: Row) -> list[str] | None:
    """Similarity to the unsteered pictures and to those of other prompts; change of the background's deviation."""
    path = likeness(model, row)
    if not path.exists():
        return None
    found = storage.read_json(path)
    mean, low, high = found["similarity"]
    strangers = found["similarity_to_strangers"]
    cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]", "-" if strangers is None else f"{strangers:.3f}"]
    if "background" in found:
        mean, low, high = found["background"]["deviation"]
        cells += [f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]", f"{found['background']['deviation_there']:.4f}"]
    return cells


def relations(model: str, row: Row) -> list[str] | None:
    """Share of right pictures under each of the four relations."""
    lines = stored(model, row)
    if not lines or "refused" in lines[0]:
        return None
    found = summarise(lines)["per_relation"]
    return [f"{found[name]['accuracy']:.2f}" if name in found else "" for name in BASIC]


def stored(model: str, row: Row) -> list[dict]:
    path = kept(model, row)
    return storage.read_jsonl(path) if path.exists() else []


VIEWS = {"accuracy": accuracy, "likeness": alike, "relations": relations}
HEADS = {
    "accuracy": (
        *("images", "right [95 %]", "against unsteered", "all present", "right where present", "passes", "s/image"),
    ),
    "likeness": ("similarity [95 %]", "to other prompts' pictures", "background, deviation [95 %]", "unsteered"),
    "relations": BASIC,
}


def require_identical(benchmark: str, options: argparse.Namespace) -> None:
    """Prompts without a relation, steered in one batch with one that has it, are as unsteered (paper, Table 7)."""
    model = open_model(ModelConfig(model=options.model, dtype=options.dtype))
    every = prompts(benchmark, find_detector("emoji").vocabulary)
    jobs = [Job(prompt.prompt, (), 0) for prompt in every[: options.limit]]
    moved = Job("a dog to the left of a cat", parse("a dog to the left of a cat"), 0)
    for start in range(0, len(jobs), 15):
        batch = [*jobs[start : start + 15], moved]
        ours, plain = (draw(model, batch, options.seed, steer=steer) for steer in (True, False))
        same = [a.image.tobytes() == b.image.tobytes() for a, b in zip(ours, plain, strict=True)]
        if not all(same[:-1]) or same[-1]:
            raise SystemExit(
                f"{benchmark}: {[job.prompt for job, s in zip(batch, same, strict=True) if not s]} changed"
            )
    print(f"{benchmark}: {len(jobs)} pictures bit-identical to the unsteered ones, in mixed batches", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=list(tables()), action="append", help="may be repeated")
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--limit", type=int, default=25, help="prompts, every relation in its share")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/tables"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for number in options.table or []:
        table = tables()[number]
        for row in table.rows:
            run(row, options, options.out / options.model.replace(":", "-") / row.name)
        for benchmark in {row.benchmark for row in table.rows} if table.plain else ():
            require_identical(benchmark, options)
    write(sorted({path.name.replace("-", ":", 1) for path in KEPT.iterdir() if path.is_dir()}) if KEPT.exists() else [])


if __name__ == "__main__":
    main()
