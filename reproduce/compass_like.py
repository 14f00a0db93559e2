"""A CoMPaSS-like baseline for docs/tables.md: fine-tuned on correct captions, with token positions added to the keys.

    python reproduce/compass_like.py --steps 400 --limit 25      # about half an hour on two cores

Trains a LoRA of ``sd:emoji``, then measures the unsteered model with it, on the prompts, noise and dtype of the rows of
paper_tables.py; also on counts and on pairs without a relation (paper, Table 7).

Source: CoMPaSS, arXiv 2412.13195. Kept are pairs with one clear axis, captions that state it correctly, and TENOR: a
sinusoidal table of positions (base 10,000), added to the text features before the key projection of every
cross-attention. Different are rendered scenes instead of filtered COCO images, a LoRA instead of the full UNet, and no
token and pixel losses, which need masks of real images. This is our implementation, not the authors'.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, Model, ModelConfig, evaluate, open_model
from learn_to_steer.evaluation.model import open_pipeline
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.geometry import BASIC
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.captions import CaptionStyle, caption
from learn_to_steer_emoji.scenes import Constraint, Scene, place, render
from learn_to_steer_emoji.sprites import object_names
from lora import adapted, fit
from paper_tables import selection, weights
from table_page import keep
from table_rows import Row

MODEL, NAME = "sd:emoji", "compass-like"
BENCHMARKS = ("geneval-position", "geneval-two-object", "geneval-counting")
TRUTHFUL = CaptionStyle(true_relation=1.0, random_relation=0.0)
SCENES = 2048


def positions(length: int, width: int) -> Tensor:
    """Make a sinusoidal table (length, width)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def add_order(unet: nn.Module) -> None:
    """Add the position in the text to the inputs of every cross-attention's key projection (TENOR)."""

    def add_positions(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        text = inputs[0]
        return (text + positions(text.shape[1], text.shape[2]).to(text), *inputs[1:])

    for name, module in unet.named_modules():
        if name.endswith("attn2.to_k"):
            module.register_forward_pre_hook(add_positions)


def aligned(count: int, seed: int) -> tuple[Tensor, list[Scene]]:
    """Render scenes of two objects with one clear axis: images (count, 3, 128, 128) in [0, 1], and the scenes."""
    rng = np.random.default_rng(seed)
    names = object_names("seen")
    scenes = []
    for number in range(count):
        pair = [names[i] for i in rng.choice(len(names), size=2, replace=False)]
        objects = place(pair, rng, [Constraint(0, BASIC[number % len(BASIC)], 1)])
        ground = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
        scenes.append(Scene(objects, ground, int(rng.integers(1 << 31))))
    return torch.cat([render(scenes[i : i + 64], 128)[0] for i in range(0, count, 64)]), scenes


def train_lora(folder: Path, options: argparse.Namespace) -> None:
    """Train the LoRA and save it to ``folder``."""
    pipe, _ = open_pipeline(ModelConfig(device="cpu"))
    images, scenes = aligned(SCENES, options.seed)
    with torch.no_grad():
        clean = torch.cat([FAMILY.encode(pipe, part) for part in images.split(32)])  # type: ignore[no-untyped-call]
    adapted(pipe, rank=16)
    add_order(pipe.unet)  # after the adapters, so that their inputs have the positions too

    def draw(rng: np.random.Generator, batch: int) -> tuple[Tensor, list[str]]:
        rows = rng.integers(len(scenes), size=batch)
        return clean[rows], ["" if rng.random() < 0.1 else caption(scenes[row], rng, TRUTHFUL) for row in rows]

    settings = {"steps": options.steps, "batch": options.batch, "rate": options.rate, "seed": options.seed}
    fit(pipe, draw, folder, **settings)
    storage.write_json(folder / "settings.json", settings)


def opened(lora: Path, dtype: str | None) -> Model:
    """Open the fine-tuned model, unsteered."""
    model = open_model(ModelConfig(objective="none", device="cpu", lora=(str(lora),), dtype=dtype))
    add_order(model.pipe.unet)
    digest = storage.sha256(next(lora.glob("*.safetensors")))[:12]
    return replace(model, fingerprints=model.fingerprints | {NAME: digest})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--batch", type=int, default=24, help="scenes a step")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--limit", type=int, default=25, help="prompts of each benchmark")
    parser.add_argument("--images", type=int, default=4, help="images of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/compass-like"))
    options = parser.parse_args()
    lora = options.out / "lora"
    if not (lora / "settings.json").is_file():
        train_lora(lora, options)
    model = opened(lora, options.dtype)
    for benchmark in BENCHMARKS:
        folder = options.out / benchmark
        config = EvaluateConfig(objective="none", benchmark=benchmark, out=str(folder), batch=16, **selection(options))
        summary = evaluate(config, model=model)
        training = storage.read_json(lora / "settings.json")
        made = selection(options) | {"weights": weights(MODEL), "settings": {}, "training": training}
        keep(MODEL, Row(NAME, benchmark), folder, made)
        print(f"{benchmark:20}correct {summary['accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    main()
