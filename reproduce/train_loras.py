"""Steering with LoRAs: a style and a new subject, trained on ``sd:emoji`` and steered with its unchanged classifier.

    python reproduce/train_loras.py --steps 200 --limit 32     # about half an hour on two cores

*style*: images in evening light. *subject*: "sks dog", a purple dog, trained together with ordinary scenes so that
nothing else changes. Position accuracy is measured with and without each LoRA, steered and unsteered, from the same
noise. The subject has prompts of its own, on which the detector (trained on tinted sprites too) looks for a dog.
Numbers and images go to docs/results/lora/. Source: paper, figures 6 and 12.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.geometry import BASIC
from learn_to_steer.loading import load_pipeline
from learn_to_steer.prompts import indefinite_article, relation_prompt
from learn_to_steer.report import contact_sheet
from learn_to_steer.result_rows import image_path
from learn_to_steer_emoji.captions import caption
from learn_to_steer_emoji.scenes import Scene, render
from learn_to_steer_emoji.sprites import object_names
from learn_to_steer_emoji.world import random_scene
from lora import adapted, fit

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results" / "lora"
SUBJECT, COLOR = "sks dog", "purple"
EVENING = (1.0, 0.74, 0.58)  # factors of red, green and blue
KEPT = ("accuracy", "accuracy_interval", "both_present", "accuracy_where_present", "passes_per_image", "images")


def evening(images: torch.Tensor) -> torch.Tensor:
    """Put images (n, 3, side, side) in [0, 1] into warm light that falls off towards the corners."""
    across = torch.linspace(-1, 1, images.shape[-1])
    distance = (across[:, None].square() + across[None].square()).sqrt()
    return images * torch.tensor(EVENING).view(1, 3, 1, 1) * (1 - 0.35 * distance.clamp(max=1.4).square() / 2)


def examples(kind: str, count: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Draw the images (count, 3, 128, 128) and captions that a LoRA is trained on."""
    rng = np.random.default_rng(seed)
    scenes, captions = [], []
    for number in range(count):
        scene = random_scene(rng)
        if kind == "subject" and number % 2 == 0:
            first, *others = scene.objects
            others = [placed for placed in others if placed.name not in ("dog", first.name)][:1]
            scene = replace(scene, objects=(replace(first, name="dog", color=COLOR), *others))
            captions.append(" and ".join([f"a {SUBJECT}", *(f"{indefinite_article(o.name)} {o.name}" for o in others)]))
        else:
            captions.append(caption(scene, rng))
        scenes.append(scene)
    return (evening(drawn(scenes)) if kind == "style" else drawn(scenes)), captions


def drawn(scenes: list[Scene]) -> torch.Tensor:
    """Render scenes."""
    return render(scenes, 128)[0]


def train_lora(kind: str, folder: Path, steps: int, batch: int, seed: int) -> None:
    """Train a LoRA and save it to ``folder``."""
    pipe = load_pipeline("sd:emoji")
    images, captions = examples(kind, 384, seed)
    with torch.no_grad():
        clean = torch.cat([FAMILY.encode(pipe, part) for part in images.split(32)])  # type: ignore[no-untyped-call]

    def draw(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str]]:
        rows = rng.integers(len(clean), size=count)
        return clean[rows], [captions[row] for row in rows]

    adapted(pipe, rank=8)
    fit(pipe, draw, folder, steps=steps, batch=batch, rate=1e-3, seed=seed)


def subject_prompts(path: Path, count: int, seed: int) -> None:
    """Write prompts with the new subject and another object, seen or unseen."""
    rng = np.random.default_rng([seed, 7])
    others = [name for name in object_names() if name != "dog"]
    lines = []
    for number in range(count):
        pair = [SUBJECT, others[rng.integers(len(others))]]
        pair = pair if number % 8 < 4 else pair[::-1]
        predicate = BASIC[number % 4]
        names = ["dog" if name == SUBJECT else name for name in pair]
        text = relation_prompt(pair[0], predicate, pair[1])
        lines.append(json.dumps({"prompt": text, "relations": [[names[0], predicate, names[1]]]}) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(path, "".join(lines))


def measure(name: str, lora: tuple[str, ...], prompts: str | None, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one LoRA, or none, unsteered and steered."""
    numbers = {}
    for what, objective in (("base", "none"), ("steered", "learned")):
        out = options.out / f"{name}-{what}"
        config = EvaluateConfig(
            objective=objective,
            lora=lora,
            prompts=prompts,
            benchmark=None if prompts else "geneval-position-val",
            images=1,
            limit=options.limit,
            seed=options.seed,
            out=str(out),
            batch=16,
            dtype=options.dtype,
        )
        summary = evaluate(config)
        numbers[what] = {key: summary[key] for key in KEPT}
        print(f"{name:10}{what:9}correct {summary['accuracy']:.3f}  present {summary['both_present']:.3f}", flush=True)
        rows = storage.read_jsonl(out / "results.jsonl")[:16]
        images = [Image.open(image_path(out, r["index"], r["sample"])) for r in rows]
        DOCS.mkdir(parents=True, exist_ok=True)
        contact_sheet(images, [bool(r["correct"]) for r in rows], 8).save(DOCS / f"{name}-{what}.png")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of training, for each LoRA")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--limit", type=int, default=32, help="prompts of each measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="of the measurements; bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/lora"))
    options = parser.parse_args()
    for kind in ("style", "subject"):
        folder = options.out / kind
        if not any(folder.glob("*.safetensors")):
            train_lora(kind, folder, options.steps, options.batch, options.seed)
    prompts = options.out / "subject.jsonl"
    subject_prompts(prompts, options.limit, options.seed)
    numbers = {
        "none": measure("none", (), None, options),
        "style": measure("style", (str(options.out / "style"),), None, options),
        "subject": measure("subject", (str(options.out / "subject"),), str(prompts), options),
    }
    made = {"steps": options.steps, "limit": options.limit, "seed": options.seed, "dtype": options.dtype}
    storage.write_json(DOCS / "sd-emoji.json", numbers | made)


if __name__ == "__main__":
    main()
