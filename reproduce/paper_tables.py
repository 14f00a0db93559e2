"""The paper's tables on a model that runs here: learned and handcrafted losses, unseen objects, several relations, ...

    python reproduce/paper_tables.py --table 1 --model sd:emoji           # hours on two cores; goes on where it stopped
    python reproduce/paper_tables.py --table 1 --limit 8 --images 1       # a small sample of the same rows
    python reproduce/paper_tables.py --write                              # docs/tables.md and CSV from what is there

Every method has the same prompts, noise, sampler and machine. Baselines run at their published schedule, in our loop
with as many passes as it has (``equal``), and so that they stop once they are sure (``equal, stopped``). Pictures go to
out/tables; of every picture one line is kept in docs/results/tables, with what it was made with, and rows that are kept
there whole are not made again. Numbers of the paper stand beside ours where it has them; they are of other models, so
what can be compared is the order of the rows. ``--t2i`` names T2I-CompBench's spatial_val.txt; without it its rows are
left out.
"""

from __future__ import annotations

import argparse
import hashlib
from functools import cache
from pathlib import Path
from statistics import mode
from typing import Any

from learn_to_steer import storage
from learn_to_steer.benchmarks import prompts
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation import (
    EvaluateConfig,
    Job,
    ModelConfig,
    ScoreConfig,
    draw,
    evaluate,
    load_scorer,
    open_model,
    score,
)
from learn_to_steer.loading import named_variant, package_folder
from learn_to_steer.prompts import parse
from learn_to_steer.steering.config import resolve_config
from learn_to_steer.storage import sha256
from table_page import KEPT, ROOT, keep, lines, place, refuse, remember_identical, settings, write
from table_rows import BASE, COMPOSED, LEARNED, POSITION, TUNED, Row, tables

OURS = ("window", "passes", "total_passes", "rate", "threshold", "stop", "pick")
SEARCHED = ("for-spatial", "for-logistic")
TUNING = ROOT / "docs" / "results" / "tuning"


@cache
def weights(model: str) -> str:
    """A digest of a packaged model with the parts it shares, its classifier and its judge: others are not compared."""
    variant = named_variant(model)
    if variant is None or variant.classifier is None:
        raise SystemExit(f"{model} is not one of the package's models: its pictures need another judge")
    folders = [Path(package_folder(name)) for name in (variant.source, variant.classifier)]
    folders += [Path(package_folder(source)) / part for part, source in variant.shared_components.items()]
    folders.append(folders[0].with_name("detector"))
    files = sorted({file for folder in folders for file in folder.rglob("*.safetensors")})
    return hashlib.sha256(" ".join(sha256(file) for file in files).encode()).hexdigest()[:16]


def steering(model: str, row: Row) -> dict[str, Any]:
    """The default settings of ours that a row rests on: it is made anew when they change. None of a published loss."""
    variant = named_variant(model)
    if variant is None or row.objective == BASE or (row.objective != LEARNED and row.profile == "default"):
        return {}
    resolved = resolve_config({}, variant, row.profile).as_dict()
    return {key: resolved[key] for key in OURS}


def searched(model: str, dtype: str | None, row: Row) -> dict[str, Any] | None:
    """Settings of ``row``: FOR's step size on FLUX is the best of a search on validation prompts (paper, C.1).

    Among its entries those made with today's weights on as many pictures as most of them count. None when there are
    none.
    """
    if not (model.startswith("flux") and row.objective in SEARCHED and row.schedule == "default"):
        return dict(row.settings)
    path = TUNING / f"{model.replace(':', '-')}-{row.objective}.json"
    stored = storage.read_json(path) if path.exists() else {}
    tried = [
        one for key, one in stored.items() if key.endswith(f" {denoiser(model, dtype)}") and "rate" in one["settings"]
    ]
    usual = mode(one["images"] for one in tried) if tried else 0  # a larger run of one setting is no search
    best = max((one for one in tried if one["images"] == usual), key=lambda one: one["accuracy"], default=None)
    return best["settings"] if best else None


@cache
def denoiser(model: str, dtype: str | None) -> str:
    """The fingerprint that entries of a search carry."""
    return open_model(ModelConfig(model=model, objective=BASE, dtype=dtype)).fingerprints["denoiser"]


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """Which pictures of every row are made: the same for all scripts whose rows stand in one table."""
    return {key: getattr(options, key) for key in ("limit", "images", "seed", "dtype")}


def made(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """What the pictures of ``row`` depend on, beside its name."""
    return asked(options) | {
        "weights": weights(options.model),
        "settings": searched(options.model, options.dtype, row),
        "steering": steering(options.model, row),
    }


def run(row: Row, options: argparse.Namespace) -> None:
    """Make and judge what is missing of ``row``, and keep a line a picture; nothing where all of it is kept."""
    folder = options.out / options.model.replace(":", "-") / row.name
    wanted = made(row, options)
    if lines(options.model, row) and settings(options.model).get(row.name) == wanted:
        print(f"{row.name}: kept", flush=True)
        return
    if wanted["settings"] is None:
        print(f"{row.name}: left out, its step size has to be searched first (tune_steering.py --rates)", flush=True)
        return
    config = EvaluateConfig(
        model=options.model,
        objective=row.objective,
        profile=row.profile,
        verifier=row.verifier,
        benchmark=row.benchmark,
        data=options.t2i if row.benchmark == COMPOSED else None,
        settings=wanted["settings"],
        out=str(folder),
        batch=16,
        **asked(options),
    )
    try:
        summary = evaluate(config, lambda done, of: print(f"\r{row.name}: {done}/{of}  ", end="", flush=True))
    except UnsupportedError as error:
        refuse(options.model, row, str(error), wanted)
        print(f"{row.name}: {error}", flush=True)
        return
    keep(options.model, row, folder, wanted)
    base = folder.with_name(Row(BASE, row.benchmark).name)
    if row.objective != BASE and row.benchmark == POSITION and (base / "summary.json").is_file():
        out = str(folder.with_name(f"{folder.name}-likeness"))
        found = score(ScoreConfig(str(folder), against=str(base), similarity="emoji", out=out))["against"]
        storage.write_json(place(options.model, row, "likeness.json"), found)
    print(f"right {summary['accuracy']:.3f}, passes {summary['passes_per_image']:.1f}", flush=True)


def require_identical(benchmark: str, options: argparse.Namespace) -> None:
    """Prompts without a relation, steered in one batch with one that has it, are as unsteered (paper, Table 7)."""
    model = open_model(ModelConfig(model=options.model, dtype=options.dtype))
    every = prompts(benchmark, load_scorer("emoji").vocabulary)
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
    shown = {"pictures": len(jobs), "weights": weights(options.model), "seed": options.seed, "dtype": options.dtype}
    remember_identical(options.model, benchmark, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=list(tables()), action="append", help="may be repeated")
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--limit", type=int, default=25, help="prompts, every relation in its share")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--row", action="append", help="only rows whose name holds this; may be repeated")
    parser.add_argument("--t2i", help="T2I-CompBench's spatial_val.txt")
    parser.add_argument("--out", type=Path, default=Path("out/tables"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for number in options.table or []:
        table = tables()[number]
        for row in table.rows:
            asked_for = not options.row or any(part in row.name for part in options.row)
            if asked_for and row.objective not in TUNED and (row.benchmark != COMPOSED or options.t2i):
                run(row, options)
        for benchmark in {row.benchmark for row in table.rows} if table.plain and not options.row else ():
            require_identical(benchmark, options)
    write(sorted({path.name.replace("-", ":", 1) for path in KEPT.iterdir() if path.is_dir()}) if KEPT.exists() else [])


if __name__ == "__main__":
    main()
