"""Fit the weights and the threshold of template matching's second stage: template_matching.WEIGHTS, THRESHOLD.

    python training/template_threshold.py      # draws the pictures first, see template_pictures.py

The pictures are the models' own, where the detector ``emoji`` says what is there if it is sure, and rendered scenes
that went through the VAE, whose objects are known. A logistic regression weighs the evidence of every candidate. Then
recall, precision and agreement of the verdict at many thresholds are printed, for each model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from learn_to_steer.geometry import Detection, iou
from learn_to_steer.loading import load_pipeline
from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.scenes import render, to_pil
from learn_to_steer_emoji.template_matching import Candidate
from learn_to_steer_emoji.world import random_scenes
from template_agreement import OVERLAP, SURE, compared, reference
from template_pictures import FOLDER, MODELS, pictures

RENDERED, SEED = 80, 73
RARITY = 3.0  # weight of correct candidates, of which there are few, in the regression
SAME_BOX = 0.5  # least IoU of a correct candidate with the object's box


def rendered() -> tuple[list[Image.Image], list[list[Detection]]]:
    """Render scenes of all objects, and encode and decode them."""
    scenes = [scene for scene in random_scenes(2 * RENDERED, SEED) if not any(p.color for p in scene.objects)]
    pixels, boxes = render(scenes[:RENDERED])
    vae = load_pipeline("sd:emoji").vae
    with torch.no_grad():
        decoded = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mode()).sample for part in torch.split(pixels, 16)]
    truth = [
        [Detection(placed.name, 1.0, box) for placed, box in zip(scene.objects, around, strict=True)]
        for scene, around in zip(scenes, boxes, strict=False)
    ]
    return to_pil((torch.cat(decoded) / 2 + 0.5).clamp(0, 1)), truth


def evidence(name: str, images: Sequence[Image.Image], *, again: bool) -> list[list[Candidate]]:
    """Find the candidates of the images, or read those that an earlier run found."""
    path = FOLDER / "tuning" / f"{name.replace(':', '-')}.json"
    if again or not path.exists():
        path.write_text(json.dumps([template_matching.candidates(image) for image in images]))
    return [[Candidate(*fields) for fields in rows] for rows in json.loads(path.read_text())]


def labelled(poses: Sequence[Candidate], known: Sequence[Detection]) -> list[tuple[tuple[float, ...], bool]]:
    """Features of the candidates, and whether each is correct; doubtful ones are left out."""
    rows = []
    for pose in poses:
        same = [one for one in known if one.name == pose.name and iou(one.box, pose.box) > OVERLAP]
        if same and max(one.score for one in same) < SURE:
            continue
        rows.append((template_matching.features(pose), any(iou(one.box, pose.box) > SAME_BOX for one in same)))
    return rows


def fitted(rows: Sequence[tuple[tuple[float, ...], bool]]) -> list[float]:
    """Weights of the features, by logistic regression."""
    values = torch.tensor([features for features, _ in rows], dtype=torch.float64)
    correct = torch.tensor([float(label) for _, label in rows], dtype=torch.float64)
    rarity = torch.tensor(RARITY, dtype=torch.float64)
    weights = torch.zeros(values.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (
            functional.binary_cross_entropy_with_logits(values @ weights, correct, pos_weight=rarity)
            + 1e-5 * weights.square().sum()
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return [round(weight, 2) for weight in weights.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--again", action="store_true", help="find the candidates anew, after a change of the code")
    options = parser.parse_args()
    prompts, poses, known = {}, {}, {}
    for model in options.models:
        prompts[model], images = pictures("tuning", model)
        known[model], in_use = reference(images)
        poses[model] = evidence(model, images, again=options.again)
    images, truth = rendered()
    poses["rendered"], known["rendered"] = evidence("rendered", images, again=options.again), truth
    rows = [
        row
        for name in poses
        for found, there in zip(poses[name], known[name], strict=True)
        for row in labelled(found, there)
    ]
    template_matching.WEIGHTS = tuple(fitted(rows))
    print(f"WEIGHTS = {template_matching.WEIGHTS}, of {len(rows)} candidates", flush=True)
    for threshold in np.arange(0.3, 0.75, 0.05).round(2).tolist():
        line = f"{threshold:.2f}"
        for model in options.models:
            found = [template_matching.selected(some, threshold) for some in poses[model]]
            outcomes = compared(prompts[model], found, known[model], in_use)
            line += f"  {model} " + "/".join(f"{np.mean(values):.3f}" for values, _ in outcomes.values())
        print(line, flush=True)


if __name__ == "__main__":
    main()
