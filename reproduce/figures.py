"""The figures of the docs: docs/figures/*.png.

    python reproduce/figures.py                       # all of them, a few minutes on two cores
    python reproduce/figures.py --only orientations

``orientations``: pairs of objects under four relations, all from the same noise (paper, Fig. 1a). ``methods``: a prompt
per row, a method per column, each row from one noise; handcrafted losses at their published schedule, on FLUX with the
step size that was searched. ``steps``: attention over the denoising steps, unsteered and steered (Fig. 5).
``failures``: failed images among the steered ones of emoji_results.py, the first ones of each kind (Fig. 13).
``limitations``: prompts of kinds that steering does not handle (Fig. 7).

No image was selected by hand: the seeds are the first ones, and all prompts are in this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.cli.image_generation import generate_images
from learn_to_steer.configs import GenerateConfig
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation import Model, ModelConfig, Scorer, load_scorer, open_model
from learn_to_steer.geometry import BASIC
from learn_to_steer.prompts import parse, relation_prompt
from learn_to_steer.report import Panel, image_grid
from learn_to_steer.result_rows import image_path
from paper_tables import searched
from table_rows import Row

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
PAIRS = (("horse", "laptop"), ("pizza", "bus"))
PROMPTS = (
    "a dog to the left of a suitcase",
    "a photo of a cow above a vase",
    "a banana below a cat",
    "an airplane to the right of a clock",
    "a chair above a sheep",
    "a robot to the left of a turtle",
)
METHODS = ("none", "attend-and-excite", "for-spatial", "storm-ot", "infsplign", "layout-guidance", "learned")
LIMITS = {
    "many objects": "a dog to the left of a cat and a pizza above a bus and the bus is to the right of a chair",
    "a scene, adjectives": "a bright photo of a small brown dog resting to the left of a shiny red bus. A clear day.",
    "one name twice": "a dog to the left of a dog",
    "depth: not a relation here": "a dog in front of a cat",
}
ACROSS = 5
KINDS = ("missing", "wrong side", "ambiguous", "fused")


def panels(model: Model, scorer: Scorer, prompts: Sequence[str], seed: int, spread: bool = False) -> list[Panel]:
    """Generate one image of each prompt, steered if the model is; its frame tells whether it is correct.

    Args:
        model: The model.
        scorer: Decides what is correct. An image of a prompt without a relation of two different objects has no frame.
        prompts: The prompts.
        seed: Of the noise.
        spread: Gives each prompt the noise of another seed, counted from ``seed``; else all have the same noise.

    Returns:
        The images with their frames.
    """
    generators = [torch.Generator().manual_seed(seed + spread * n) for n in range(len(prompts))]
    call = model.steered or model.pipe
    images = call(list(prompts), generator=generators, **model.sampling).images
    cells = []
    for image, text in zip(images, prompts, strict=True):
        prompt = BenchmarkPrompt(0, text, parse(text), {})
        correct = None
        if any(relation.subject != relation.object for relation in prompt.relations):
            correct = scorer.score(prompt, scorer.detect([image], [prompt])[0])["correct"]
        cells.append(Panel(image, correct))
    return cells


def both(options: argparse.Namespace) -> dict[str, Model]:
    """Open the model unsteered and steered."""
    objectives = {"unsteered": "none", "steered": "learned"}
    return {
        label: open_model(ModelConfig(model=options.model, objective=name, dtype=options.dtype))
        for label, name in objectives.items()
    }


def orientations(options: argparse.Namespace, scorer: Scorer) -> Image.Image:
    """Draw the figure ``orientations``."""
    models = both(options)
    rows = []
    for a, b in PAIRS:
        prompts = [relation_prompt(a, relation, b) for relation in BASIC]
        for label, model in models.items():
            rows.append((f"{a}, {b}: {label}", panels(model, scorer, prompts, options.seed)))
    return image_grid(BASIC, rows)


def methods(options: argparse.Namespace, scorer: Scorer) -> Image.Image:
    """Draw the figure ``methods``."""
    columns = {}
    for name in METHODS:
        try:
            settings = searched(options.model, options.dtype, Row(name))
            if settings is None:
                print(f"methods: {name} left out, its step size was not searched in this --dtype", flush=True)
                continue
            model = open_model(ModelConfig(model=options.model, objective=name, dtype=options.dtype, settings=settings))
        except UnsupportedError as error:
            print(f"methods: {error}", flush=True)
            continue
        columns["unsteered" if name == "none" else name] = panels(model, scorer, PROMPTS, options.seed, spread=True)
    rows = [(prompt, [column[n] for column in columns.values()]) for n, prompt in enumerate(PROMPTS)]
    return image_grid(list(columns), rows)


def steps(options: argparse.Namespace, scorer: Scorer) -> Image.Image:
    """Draw the figure ``steps``."""
    out = options.out / "steps"
    config = GenerateConfig(
        model=options.model, prompts=PROMPTS[:1], seed=options.seed, dtype=options.dtype, out=str(out)
    )
    generate_images(config, lambda done, of: None)
    return Image.open(out / "maps.png")


def failures(options: argparse.Namespace, scorer: Scorer) -> Image.Image | None:
    """Draw the figure ``failures``; None without results to take it from, or without failures in them."""
    folder = ROOT / "out" / "results" / options.model.replace(":", "-") / "seen-steered"
    if not (folder / "results.jsonl").is_file():
        print("failures: left out, run emoji_results.py --only seen first", flush=True)
        return None
    rows = []
    listed = storage.read_jsonl(folder / "results.jsonl")
    blank = Panel(Image.new("RGB", (128, 128), "white"))
    for kind in KINDS:
        wrong = [row for row in listed if row["reason"].startswith(kind)]
        first = list({row["index"]: row for row in reversed(wrong)}.values())[::-1][:ACROSS]  # one for each prompt
        cells = [
            Panel(Image.open(image_path(folder, row["index"], row["sample"])), False, row["prompt"].split(" of ", 1)[1])
            for row in first
        ]
        if cells:
            rows.append((f"{kind} ({len(wrong)} of {len(listed)})", [*cells, *[blank] * (ACROSS - len(cells))]))
    return image_grid([""] * ACROSS, rows) if rows else None


def limitations(options: argparse.Namespace, scorer: Scorer) -> Image.Image:
    """Draw the figure ``limitations``."""
    models = both(options)
    rows = []
    for what, prompt in LIMITS.items():
        for label, model in models.items():
            rows.append((f"{what}: {label}", panels(model, scorer, [prompt] * ACROSS, options.seed, spread=True)))
    return image_grid([""] * ACROSS, rows)


FIGURE = {
    "orientations": orientations,
    "methods": methods,
    "steps": steps,
    "failures": failures,
    "limitations": limitations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--only", choices=list(FIGURE), action="append", help="may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/figures"))
    options = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    scorer = load_scorer("emoji")
    for name in options.only or FIGURE:
        figure = FIGURE[name](options, scorer)
        if figure is not None:
            figure.save(FIGURES / f"{options.model.replace(':', '-')}-{name}.png")
            print(name, flush=True)


if __name__ == "__main__":
    main()
