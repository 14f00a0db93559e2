"""Steering compared between schedulers, with the same noise: accuracy and passes, unsteered and steered.

    python reproduce/schedulers.py --model sd:emoji --limit 48
    PYTHONPATH=OLD/src:OLD/emoji_world/src python reproduce/schedulers.py --label before    # another checkout's code

The settings are those of the model, and the step size is measured in the denoiser's input, so that rows should differ
by chance alone. A row of ``sd:emoji`` takes one or two minutes on two cores. Only validation prompts are used.

A script that was stopped goes on where it was. Images go to out/schedulers, numbers to
docs/results/schedulers/MODEL.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate

ROOT = Path(__file__).resolve().parents[1]
SCHEDULERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)
KEPT = ("accuracy", "accuracy_interval", "both_present", "passes_per_image", "images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji", help="a Stable Diffusion model")
    parser.add_argument("--schedulers", nargs="+", default=SCHEDULERS, metavar="CLASS")
    parser.add_argument("--label", default="now", help="name of the code in the results")
    parser.add_argument("--limit", type=int, default=48, help="validation prompts")
    parser.add_argument("--images", type=int, default=1, help="images of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/schedulers"))
    options = parser.parse_args()
    name = options.model.replace(":", "-")
    path = ROOT / "docs" / "results" / "schedulers" / f"{name}.json"
    for scheduler in options.schedulers:
        for objective in ("none", "learned"):
            summary = evaluate(
                EvaluateConfig(
                    model=options.model,
                    scheduler=scheduler,
                    objective=objective,
                    benchmark="geneval-position-val",
                    images=options.images,
                    limit=options.limit,
                    seed=options.seed,
                    out=str(options.out / name / options.label / f"{scheduler}-{objective}"),
                    batch=16,
                )
            )
            low, high = summary["accuracy_interval"]
            passes = summary["passes_per_image"] or 0
            print(
                f"{options.label:8} {scheduler:32} {objective:8} correct {summary['accuracy']:.3f} "
                f"[{low:.2f}, {high:.2f}]  passes {passes:.1f}",
                flush=True,
            )
            stored: dict[str, Any] = storage.read_json(path) if path.exists() else {}
            key = f"{options.label}, {options.limit} prompts x {options.images}, seed {options.seed}"
            row = {kept: summary[kept] for kept in KEPT}
            stored.setdefault(key, {}).setdefault(scheduler, {})[objective] = row
            storage.write_json(path, stored)


if __name__ == "__main__":
    main()
