"""How far the detector and template matching agree with a person on the objects in images of the base model.

    python training/detector_agreement.py --draw   # 100 images -> docs/results/labelled/pictures.png, prompts.json
    python training/detector_agreement.py          # compare; needs labels.json beside them, written by a person

Takes a few minutes each. ``labels.json`` lists, for every image, the names of the objects that a person sees, in any
order. Each image has two decisions, "is this object of the prompt present?"; the script also counts the images in which
the whole lists of names agree. Cohen's kappa compares the detector with template matching, which share no method.
The results go to agreement.json.
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


def draw_images(model_name: str, seed: int) -> None:
    """Draw prompts "a X and a Y" and tile the images into one file."""
    pairs, jobs = and_jobs(COUNT, np.random.default_rng([seed, 100]))
    model = open_model(ModelConfig(model=model_name, objective="none"))
    tiled = Image.new("RGB", (ACROSS * SIDE, COUNT // ACROSS * SIDE))
    for start in range(0, COUNT, 20):
        for number, drawn in enumerate(draw(model, jobs[start : start + 20], seed, steer=False), start):
            tiled.paste(drawn.image, (number % ACROSS * SIDE, number // ACROSS * SIDE))
        print(f"{start + 20} of {COUNT} images", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    tiled.save(FOLDER / "pictures.png", optimize=True)
    storage.write_json(FOLDER / "prompts.json", {"pairs": pairs, "seed": seed, "fingerprints": model.fingerprints})


def compare() -> None:
    """Compare detector, template matching and person, and write agreement.json."""
    pairs = storage.read_json(FOLDER / "prompts.json")["pairs"]
    labels = [set(names) for names in storage.read_json(FOLDER / "labels.json")]
    unknown = set().union(*labels) - set(object_names())
    if unknown or len(labels) != COUNT:
        raise SystemExit(f"labels.json: {len(labels)} entries of {COUNT}, unknown names {sorted(unknown)}")
    tiled = Image.open(FOLDER / "pictures.png")
    corners = [(n % ACROSS * SIDE, n // ACROSS * SIDE) for n in range(COUNT)]
    images = [tiled.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]
    names_by = {
        "detector": [{d.name for d in detections} for detections in load().detect(images)],
        "templates": [{d.name for d in template_matching.find(image)} for image in images],
        "person": labels,
    }
    decisions = {
        who: [name in names for names, pair in zip(sets, pairs, strict=True) for name in pair]
        for who, sets in names_by.items()
    }
    groups = [n for n in range(COUNT) for _ in range(2)]
    result: dict[str, Any] = {"pictures": COUNT, "decisions": len(groups)}
    result |= {f"{who}_present": float(np.mean(values)) for who, values in decisions.items()}
    for who, sets in names_by.items():
        both = [set(pair) <= names for pair, names in zip(pairs, sets, strict=True)]
        result[f"{who}_both_present"] = float(np.mean(both))
    for who in ("detector", "templates"):
        same = [a == b for a, b in zip(decisions[who], decisions["person"], strict=True)]
        result[f"{who}_and_person"] = float(np.mean(same))
        result[f"{who}_and_person_interval"] = clustered_interval(same, groups)
        result[f"{who}_and_person_whole_lists"] = float(
            np.mean([a == b for a, b in zip(names_by[who], labels, strict=True)])
        )
    every_name = {who: [n in names for names in sets for n in object_names()] for who, sets in names_by.items()}
    result["kappa_detector_templates_every_name"] = cohens_kappa(every_name["detector"], every_name["templates"])
    result["kappa_detector_templates"] = cohens_kappa(decisions["detector"], decisions["templates"])
    result["kappa_detector_person"] = cohens_kappa(decisions["detector"], decisions["person"])
    storage.write_json(FOLDER / "agreement.json", result)
    for key, value in result.items():
        print(f"{key:40} {value}")
    for number, (a, b) in enumerate(zip(names_by["detector"], labels, strict=True)):
        if a != b:
            print(f"image {number}: detector {sorted(a)}, person {sorted(b)}, prompt {pairs[number]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="draw new images; they then need new labels")
    options = parser.parse_args()
    if options.draw:
        draw_images(options.model, options.seed)
    else:
        compare()


if __name__ == "__main__":
    main()
