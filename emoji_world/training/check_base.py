"""Check that an unsteered model is a fair base: it draws objects well and ignores relations, as real models do.

    python training/check_base.py --model sd:emoji --pairs 120 --limit 50 --out out/base

Measured are: both objects present on prompts "a X and a Y" (wanted: at least 90 %); position correct on validation
prompts (wanted: 10 to 35 %); and, where both objects are present there, the share that lies on the prompted side of
the axis (wanted: 52 to 70 %). Takes about ten minutes on two cores.

Writes base.json, and sheet.png with 64 images that nobody selected; a green frame means that both objects were found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, ModelConfig, evaluate, open_model
from learn_to_steer.evaluation.generation import draw
from learn_to_steer.report import contact_sheet
from learn_to_steer.statistics import clustered_interval
from learn_to_steer_emoji.detector import load
from pairs import and_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--pairs", type=int, default=120, help='prompts "a X and a Y", one image each')
    parser.add_argument("--limit", type=int, default=50, help="validation position prompts")
    parser.add_argument("--images", type=int, default=2, help="images of each position prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/base"))
    options = parser.parse_args()

    pairs, jobs = and_jobs(options.pairs, np.random.default_rng(options.seed))
    model = open_model(ModelConfig(model=options.model, objective="none", dtype=options.dtype))
    images = []
    for start in range(0, len(jobs), 20):
        images += [drawn.image for drawn in draw(model, jobs[start : start + 20], options.seed, steer=False)]
        print(f"{len(images)} of {len(jobs)} images", flush=True)
    detected = [{d.name for d in detections} for detections in load().detect(images)]
    present = [set(pair) <= names for pair, names in zip(pairs, detected, strict=True)]
    options.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(images[:64], present[:64], 8).save(options.out / "sheet.png")

    position = evaluate(
        EvaluateConfig(
            model=options.model,
            objective="none",
            benchmark="geneval-position-val",
            images=options.images,
            limit=options.limit,
            seed=options.seed,
            dtype=options.dtype,
            out=str(options.out / "position"),
            batch=20,
        )
    )
    results = {
        "and_both_present": sum(present) / len(present),
        "and_both_present_interval": clustered_interval(present, range(len(present))),
        "position": {
            k: position[k] for k in ("accuracy", "accuracy_interval", "both_present", "on_axis_where_present")
        },
        "pairs": options.pairs,
        "position_images": position["images"],
        "seed": options.seed,
    }
    storage.write_json(options.out / "base.json", results)
    print(results)


if __name__ == "__main__":
    main()
