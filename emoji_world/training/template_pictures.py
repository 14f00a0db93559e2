"""Pictures to tune and to measure template matching on: drawn once by the packaged models, then read from a folder.

    python training/template_pictures.py --part tuning --models sd:emoji flux:emoji flux:emoji-schnell
    python training/template_pictures.py --part report --models sd:emoji flux:emoji flux:emoji-schnell

``tuning`` has 120 pictures a model: pairs of seen objects ("a X and a Y", not steered), and validation prompts with
one and two relations, steered. ``report`` has 140 others: pairs of all objects, and the prompts of three benchmarks,
steered, from another seed than the tables. On one core, each takes some five minutes for sd:emoji and a minute or two
for the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from learn_to_steer.benchmarks import BenchmarkPrompt, prompts, stratified
from learn_to_steer.evaluation import ModelConfig, open_model
from learn_to_steer.evaluation.generation import Job, draw
from learn_to_steer.prompts import indefinite_article
from learn_to_steer_emoji.sprites import canonical_names, object_names
from loop import CHECKPOINTS

FOLDER = CHECKPOINTS / "template-pictures"
MODELS = ("sd:emoji", "flux:emoji", "flux:emoji-schnell")
# Prompts of each part: a benchmark and how many of it; "pairs" are "a X and a Y".
PARTS = {
    "tuning": {"pairs": 48, "geneval-position-val": 48, "multi-relation-val-3-2": 24},
    "report": {"pairs": 40, "geneval-position": 48, "unseen": 24, "multi-relation-3-2": 28},
}
SEEDS = {"tuning": 71, "report": 72}
BATCH = 8


def planned(part: str) -> list[BenchmarkPrompt]:
    """Make the prompts of a part, one picture each. Those without relations are not steered."""
    seed = SEEDS[part]
    chosen: list[BenchmarkPrompt] = []
    for name, count in PARTS[part].items():
        if name == "pairs":
            chosen += _pairs(count, object_names("seen" if part == "tuning" else None), seed)
        else:
            chosen += stratified(prompts(name, canonical_names()), count, seed)
    return chosen


def _pairs(count: int, names: tuple[str, ...], seed: int) -> Iterator[BenchmarkPrompt]:
    rng = np.random.default_rng(seed)
    for number in range(count):
        a, b = (names[i] for i in rng.choice(len(names), 2, replace=False))
        text = f"{indefinite_article(a)} {a} and {indefinite_article(b)} {b}"
        yield BenchmarkPrompt(number, text, (), {"tag": "pair", "include": [{"class": a}, {"class": b}]})


def pictures(part: str, model: str) -> tuple[list[BenchmarkPrompt], list[Image.Image]]:
    """Read the pictures of a part, or draw those that are not there yet.

    Args:
        part: A key of ``PARTS``.
        model: Name of the model.

    Returns:
        The prompts, and one picture of each.
    """
    folder = FOLDER / part / model.replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = planned(part)
    left = [n for n in range(len(wanted)) if not (folder / f"{n:03}.png").exists()]
    if left:
        _draw(folder, model, part, [(n, wanted[n]) for n in left])
    return wanted, [Image.open(folder / f"{n:03}.png").convert("RGB") for n in range(len(wanted))]


def _draw(folder: Path, model: str, part: str, wanted: Sequence[tuple[int, BenchmarkPrompt]]) -> None:
    opened = open_model(ModelConfig(model=model))
    for steer in (False, True):
        rows = [(n, prompt) for n, prompt in wanted if bool(prompt.relations) == steer]
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            jobs = [Job(prompt.prompt, prompt.relations, 0) for _, prompt in batch]
            for (n, _), drawn in zip(batch, draw(opened, jobs, SEEDS[part], steer=steer), strict=True):
                drawn.image.save(folder / f"{n:03}.tmp", "PNG")
                (folder / f"{n:03}.tmp").rename(folder / f"{n:03}.png")
            print(f"{model}, {part}: {len(list(folder.glob('*.png')))} pictures", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    for model in options.models:
        pictures(options.part, model)


if __name__ == "__main__":
    main()
