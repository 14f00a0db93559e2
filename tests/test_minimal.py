"""The example that states the method by hand is short, and equal to the product."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from learn_to_steer.evaluation.model import ModelConfig, open_model

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "minimal.py"
PROMPT = "a dog to the left of a teddy bear"
STEPS = 8


def example() -> Any:
    spec = importlib.util.spec_from_file_location("minimal", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 80


def test_it_is_equal_to_the_product() -> None:
    model = open_model(ModelConfig(model="sd:emoji", device="cpu", steps=STEPS))
    assert model.steered
    minimal = example()
    latents, made = minimal.draw(model.pipe, model.steered.loss.classifier, PROMPT, steps=STEPS, seed=1)
    generator = torch.Generator().manual_seed(1)
    out = model.steered(PROMPT, generator=generator, output_type="latent", **model.sampling)
    report = out.steering.images[0]
    assert torch.equal(out.images, latents)
    assert report.passes == made > 0 and report.checks > 0  # so the stop rule is compared too
    config = model.steered.config
    assert (config.window, config.iterations, config.step_size, config.threshold) == (
        minimal.WINDOW,
        minimal.ITERATIONS,
        minimal.STEP_SIZE,
        minimal.THRESHOLD,
    )
