"""Steering settings compared on validation prompts, with the same noise: one row per setting.

    python reproduce/tune_steering.py --model sd:emoji --limit 48
    python reproduce/tune_steering.py --model sd:emoji --limit 48 --try "gentle: rate=0.02 passes=8"
    python reproduce/tune_steering.py --model flux:schnell --objective for-spatial --rates 5 20 50 100 200 --passes 1 15

A row of ``sd:emoji`` takes one or two minutes on two cores. The last line is the paper's search of FOR-Spatial's step
size on FLUX (appendix C.1). The rows always contain the unsteered model and the profile without changes.

A script that was stopped goes on where it was. Images go to out/tuning, numbers to docs/results/tuning/MODEL.json, one
entry per setting, number of prompts, seed and weights. Only validation prompts are used.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from learn_to_steer import registry, storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ("geneval-position-val", *(f"multi-relation-val-{form}" for form in ("3-2", "4-2", "4-3", "5-3")))
BASE = "base"
KEPT = (
    *("accuracy", "accuracy_interval", "both_present", "each_once", "accuracy_where_present"),
    *("passes_per_image", "images"),
)


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Split "name: key=value key=value" into the name and the settings."""
    name, _, pairs = text.partition(":")
    return name.strip(), settings_of(pairs.split())


def settings_of(pairs: Iterable[str]) -> dict[str, Any]:
    """The settings in texts like "rate=0.03"; values are JSON."""
    return {key: json.loads(value) for key, _, value in (one.partition("=") for one in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--objective", default="learned")
    parser.add_argument("--benchmark", default=BENCHMARKS[0], choices=BENCHMARKS)
    parser.add_argument("--profile", default="default", help="of which the rows change single settings")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[], help="step sizes: a row for each with each of --passes"
    )
    parser.add_argument("--passes", type=int, nargs="+", default=[1], help="passes a step, with --rates")
    parser.add_argument(
        "--try",
        dest="tries",
        action="append",
        default=[],
        metavar="'NAME: KEY=VALUE ...'",
        help="a row; may be repeated",
    )
    parser.add_argument("--classifier", help="another classifier than the model's own")
    parser.add_argument("--limit", type=int, default=48, help="validation prompts")
    parser.add_argument("--images", type=int, default=1, help="images of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/tuning"))
    options = parser.parse_args()
    objective = registry.normal(options.objective)
    label = options.model.replace(":", "-") + ("" if objective == "learned" else f"-{objective}")
    label += "" if options.profile == "default" else f"-{options.profile}"
    label += "" if options.benchmark == BENCHMARKS[0] else f"-{options.benchmark}"
    path = ROOT / "docs" / "results" / "tuning" / f"{label}.json"
    grid = [(f"rate {r:g}, {n} passes", {"rate": r, "passes": n}) for r in options.rates for n in options.passes]
    for name, settings in [(BASE, {}), (options.profile, {}), *grid, *map(parsed, options.tries)]:
        config = EvaluateConfig(
            model=options.model,
            objective="none" if name == BASE else objective,
            profile=options.profile,
            classifier=None if name == BASE else options.classifier,
            benchmark=options.benchmark,
            images=options.images,
            limit=options.limit,
            seed=options.seed,
            settings=settings,
            dtype=options.dtype,
            out=str(options.out / label / name),
            batch=16,
        )
        summary = evaluate(config)
        low, high = summary["accuracy_interval"]
        where, passes = summary["accuracy_where_present"] or 0, summary["passes_per_image"]
        correct = f"correct {summary['accuracy']:.3f} [{low:.2f}, {high:.2f}] (where present {where:.3f})"
        present = f"present {summary['both_present']:.3f}  each once {summary['each_once'] or 0:.3f}"
        print(f"{name:24} {correct}  {present}  passes {passes:.1f}", flush=True)
        weights = " ".join(summary["fingerprints"].values())
        pictures = f"{options.limit} prompts" + (f" x {options.images}" if options.images > 1 else "")
        key = f"{name}, {pictures}, seed {options.seed}, weights {weights}"
        stored = storage.read_json(path) if path.exists() else {}  # another process may try other settings
        stored[key] = {"settings": settings} | {k: summary[k] for k in KEPT}
        storage.write_json(path, stored)


if __name__ == "__main__":
    main()
