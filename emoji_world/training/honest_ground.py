"""Is a base model honest ground? Objects on "a X and a Y" prompts, relations on position prompts, unsteered.

    python training/honest_ground.py --model sd:emoji --pairs 120 --limit 50 --out out/ground

Writes ground.json and sheet.png (64 uncurated pictures; green: both objects found). Wanted: both present on
"and" prompts >= 90 %, position right 10-35 %, right side of the prompted axis where both present 52-70 %.
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--pairs", type=int, default=120, help='prompts "a X and a Y", one image each')
    parser.add_argument("--limit", type=int, default=50, help="validation position prompts")
    parser.add_argument("--images", type=int, default=2, help="images of each position prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/ground"))
    options = parser.parse_args()

    pairs, jobs = and_jobs(options.pairs, np.random.default_rng(options.seed))
    model = open_model(ModelConfig(model=options.model, objective="none", dtype=options.dtype))
    pictures = []
    for start in range(0, len(jobs), 20):
        pictures += [p.image for p in draw(model, jobs[start : start + 20], options.seed, steer=False)]
        print(f"{len(pictures)} of {len(jobs)} pictures", flush=True)
    found = [{d.name for d in detections} for detections in load().detect(pictures)]
    present = [set(pair) <= seen for pair, seen in zip(pairs, found, strict=True)]
    options.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures[:64], present[:64], 8).save(options.out / "sheet.png")

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
    ground = {
        "and_both_present": sum(present) / len(present),
        "and_both_present_interval": clustered_interval(present, range(len(present))),
        "position": {
            k: position[k] for k in ("accuracy", "accuracy_interval", "both_present", "on_axis_where_present")
        },
        "pairs": options.pairs,
        "position_images": position["images"],
        "seed": options.seed,
    }
    storage.write_json(options.out / "ground.json", ground)
    print(ground)


if __name__ == "__main__":
    main()
