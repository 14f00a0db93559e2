"""docs/tables.md: the paper's tables on an emoji model. Learned and handcrafted losses, unseen objects, and more.

    python reproduce/paper_tables.py --table 1 --model sd:emoji           # two hours on two cores
    python reproduce/paper_tables.py --table 1 --limit 8 --images 1       # a small sample of the same rows, in minutes
    python reproduce/paper_tables.py --write                              # only the page and CSVs, from what is kept

All tables take about four hours on ``sd:emoji`` and half an hour on ``flux:emoji``. A script that was stopped goes on
where it was.

Every method gets the same prompts, noise and sampler. Baselines run at their published schedule, at ours with as many
passes (``equal``), and at ours with its stop too (``equal, stopped``). Images go to out/tables. docs/results/tables
keeps a line for each image, and what each row was made with; rows that are complete there are not made again. The
paper's numbers are shown where it has them. They are from other models: only the order of the rows can be compared.
``--t2i`` names T2I-CompBench's file spatial_val.txt; without it, the rows of that benchmark are left out.
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
from learn_to_steer.model_names import named_variant, package_folder
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
    """Digest the weights of a packaged model, the parts it shares, its classifier and its detector.

    Only rows with the same digest are compared.
    """
    variant = named_variant(model)
    if variant is None or variant.classifier is None:
        raise SystemExit(f"{model} is not one of the emoji models: their detector cannot score its images")
    folders = [Path(package_folder(name)) for name in (variant.source, variant.classifier)]
    folders += [Path(package_folder(source)) / part for part, source in variant.shared_components.items()]
    folders.append(folders[0].with_name("detector"))
    files = sorted({file for folder in folders for file in folder.rglob("*.safetensors")})
    return hashlib.sha256(" ".join(sha256(file) for file in files).encode()).hexdigest()[:16]


def steering(model: str, row: Row) -> dict[str, Any]:
    """Return the default steering settings that a row depends on; empty for a published loss at its own schedule."""
    variant = named_variant(model)
    if variant is None or row.objective == BASE or (row.objective != LEARNED and row.profile == "default"):
        return {}
    resolved = resolve_config({}, variant, row.profile).as_dict()
    return {key: resolved[key] for key in OURS}


def searched(model: str, dtype: str | None, row: Row) -> dict[str, Any] | None:
    """Return the settings of ``row``; None if they have to be searched first.

    FOR's step size on FLUX is the best one of a search on validation prompts (paper, C.1). Entries count that were made
    with the present weights, on as many images as most of these entries.
    """
    if not (model.startswith("flux") and row.objective in SEARCHED and row.schedule == "default"):
        return dict(row.settings)
    path = TUNING / f"{model.replace(':', '-')}-{row.objective}.json"
    stored = storage.read_json(path) if path.exists() else {}
    tried = [
        one for key, one in stored.items() if key.endswith(f" {denoiser(model, dtype)}") and "rate" in one["settings"]
    ]
    usual = mode(one["images"] for one in tried) if tried else 0  # leaves out larger runs of single settings
    best = max((one for one in tried if one["images"] == usual), key=lambda one: one["accuracy"], default=None)
    return best["settings"] if best else None


@cache
def denoiser(model: str, dtype: str | None) -> str:
    """Return the fingerprint of the denoiser, by which entries of a search are recognised."""
    return open_model(ModelConfig(model=model, objective=BASE, dtype=dtype)).fingerprints["denoiser"]


def selection(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide which images a row has; the same for all scripts whose rows share a table."""
    return {key: getattr(options, key) for key in ("limit", "images", "seed", "dtype")}


def made(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the images of ``row`` depend on, besides its name."""
    return selection(options) | {
        "weights": weights(options.model),
        "settings": searched(options.model, options.dtype, row),
        "steering": steering(options.model, row),
    }


def run(row: Row, options: argparse.Namespace) -> None:
    """Make and score the images that ``row`` lacks, and keep a line for each; do nothing if the row is complete."""
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
        **selection(options),
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
        comparison = score(ScoreConfig(str(folder), against=str(base), similarity="emoji", out=out))["against"]
        storage.write_json(place(options.model, row, "likeness.json"), comparison)
    print(f"correct {summary['accuracy']:.3f}, passes {summary['passes_per_image']:.1f}", flush=True)


def require_identical(benchmark: str, options: argparse.Namespace) -> None:
    """Check that steering changes no image of a prompt without relation, even in mixed batches (paper, Table 7)."""
    model = open_model(ModelConfig(model=options.model, dtype=options.dtype))
    every = prompts(benchmark, load_scorer("emoji").vocabulary)
    jobs = [Job(prompt.prompt, (), 0) for prompt in every[: options.limit]]
    steered = Job("a dog to the left of a cat", parse("a dog to the left of a cat"), 0)
    for start in range(0, len(jobs), 15):
        batch = [*jobs[start : start + 15], steered]
        ours, plain = (draw(model, batch, options.seed, steer=steer) for steer in (True, False))
        same = [a.image.tobytes() == b.image.tobytes() for a, b in zip(ours, plain, strict=True)]
        if not all(same[:-1]) or same[-1]:
            raise SystemExit(
                f"{benchmark}: {[job.prompt for job, s in zip(batch, same, strict=True) if not s]} changed"
            )
    print(f"{benchmark}: {len(jobs)} images bit-identical to the unsteered ones, in mixed batches", flush=True)
    entry = {"pictures": len(jobs), "weights": weights(options.model), "seed": options.seed, "dtype": options.dtype}
    remember_identical(options.model, benchmark, entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=list(tables()), action="append", help="may be repeated")
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--limit", type=int, default=25, help="prompts of each row, all relations in proportion")
    parser.add_argument("--images", type=int, default=4, help="images of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--row", action="append", help="only rows whose name contains this; may be repeated")
    parser.add_argument("--t2i", help="T2I-CompBench's spatial_val.txt")
    parser.add_argument("--out", type=Path, default=Path("out/tables"))
    parser.add_argument("--write", action="store_true", help="only write docs/tables.md and the CSVs")
    options = parser.parse_args()
    for number in options.table or []:
        table = tables()[number]
        for row in table.rows:
            wanted = not options.row or any(part in row.name for part in options.row)
            if wanted and row.objective not in TUNED and (row.benchmark != COMPOSED or options.t2i):
                run(row, options)
        for benchmark in {row.benchmark for row in table.rows} if table.plain and not options.row else ():
            require_identical(benchmark, options)
    write(sorted({path.name.replace("-", ":", 1) for path in KEPT.iterdir() if path.is_dir()}) if KEPT.exists() else [])


if __name__ == "__main__":
    main()
