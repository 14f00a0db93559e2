"""Do the detector, a second judge and a person see the same objects in pictures of the base model?

    python training/judge_agreement.py --draw      # 100 pictures -> docs/results/labelled/pictures.png, prompts.json
    python training/judge_agreement.py             # score: needs labels.json beside them, written by a person

``labels.json`` holds, for every picture, the names of the objects that a person sees, in any order. A decision is
"is this prompted object there?", two a picture; besides them the script counts the pictures whose whole list of
names agrees. Cohen's kappa compares detector and template judge, which learn nothing from each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.evaluation import ModelConfig, open_model
from learn_to_steer.evaluation.generation import draw
from learn_to_steer.statistics import clustered_interval, cohens_kappa
from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.detector import load
from learn_to_steer_emoji.sprites import object_names
from pairs import and_jobs

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results" / "labelled"
COUNT, ACROSS, SIDE = 100, 10, 128


def draw_pictures(model_name: str, seed: int) -> None:
    """Pictures of prompts "a X and a Y", tiled into one file."""
    pairs, jobs = and_jobs(COUNT, np.random.default_rng([seed, 100]))
    model = open_model(ModelConfig(model=model_name, objective="none"))
    tiled = Image.new("RGB", (ACROSS * SIDE, COUNT // ACROSS * SIDE))
    for start in range(0, COUNT, 20):
        for number, picture in enumerate(draw(model, jobs[start : start + 20], seed, steer=False), start):
            tiled.paste(picture.image, (number % ACROSS * SIDE, number // ACROSS * SIDE))
        print(f"{start + 20} of {COUNT} pictures", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    tiled.save(FOLDER / "pictures.png", optimize=True)
    storage.write_json(FOLDER / "prompts.json", {"pairs": pairs, "seed": seed, "fingerprints": model.fingerprints})


def score() -> None:
    pairs = storage.read_json(FOLDER / "prompts.json")["pairs"]
    labels = [set(names) for names in storage.read_json(FOLDER / "labels.json")]
    unknown = set().union(*labels) - set(object_names())
    if unknown or len(labels) != COUNT:
        raise SystemExit(f"labels.json: {len(labels)} entries of {COUNT}, unknown names {sorted(unknown)}")
    tiled = Image.open(FOLDER / "pictures.png")
    corners = [(n % ACROSS * SIDE, n // ACROSS * SIDE) for n in range(COUNT)]
    pictures = [tiled.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]
    seen = {
        "detector": [{d.name for d in found} for found in load().detect(pictures)],
        "judge": [{d.name for d in template_matching.find(picture)} for picture in pictures],
        "person": labels,
    }
    said = {
        who: [name in names for names, pair in zip(sets, pairs, strict=True) for name in pair]
        for who, sets in seen.items()
    }
    groups = [n for n in range(COUNT) for _ in range(2)]
    result: dict[str, Any] = {"pictures": COUNT, "decisions": len(groups)}
    result |= {f"{who}_present": float(np.mean(values)) for who, values in said.items()}
    for who, sets in seen.items():
        both = [set(pair) <= names for pair, names in zip(pairs, sets, strict=True)]
        result[f"{who}_both_present"] = float(np.mean(both))
    for who in ("detector", "judge"):
        same = [a == b for a, b in zip(said[who], said["person"], strict=True)]
        result[f"{who}_and_person"] = float(np.mean(same))
        result[f"{who}_and_person_interval"] = clustered_interval(same, groups)
        result[f"{who}_and_person_whole_lists"] = float(
            np.mean([a == b for a, b in zip(seen[who], labels, strict=True)])
        )
    everything = {who: [n in names for names in sets for n in object_names()] for who, sets in seen.items()}
    result["kappa_detector_judge_every_name"] = cohens_kappa(everything["detector"], everything["judge"])
    result["kappa_detector_judge"] = cohens_kappa(said["detector"], said["judge"])
    result["kappa_detector_person"] = cohens_kappa(said["detector"], said["person"])
    storage.write_json(FOLDER / "agreement.json", result)
    for key, value in result.items():
        print(f"{key:40} {value}")
    for number, (a, b) in enumerate(zip(seen["detector"], labels, strict=True)):
        if a != b:
            print(f"picture {number}: detector {sorted(a)}, person {sorted(b)}, prompt {pairs[number]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="draw new pictures; labels then have to be made anew")
    options = parser.parse_args()
    if options.draw:
        draw_pictures(options.model, options.seed)
    else:
        score()


if __name__ == "__main__":
    main()
