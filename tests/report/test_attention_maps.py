"""Maps over the steps, read from kept latents, are the maps that the model had."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from learn_to_steer.prompts import parse
from learn_to_steer.report import LatentTrajectory, object_maps

PROMPT = "a dog to the left of a teddy bear"


def test_maps_of_kept_latents(tiny_sd):
    trajectory = LatentTrajectory(steps=4, keep=3)
    noise = torch.randn(2, 16, 12, 8, generator=torch.Generator().manual_seed(0))
    arguments = {"num_inference_steps": 4, "height": 96, "width": 64, "latents": noise, "output_type": "latent"}
    tiny_sd([PROMPT] * 2, callback_on_step_end=trajectory, **arguments)
    assert sorted(trajectory.kept) == [1, 2, 3]
    maps = object_maps(
        tiny_sd, PROMPT, parse(PROMPT), [(trajectory, 0), (trajectory, 1), (trajectory, 0)], {"height": 96, "width": 64}
    )
    assert maps.objects == ("dog", "teddy bear")
    assert maps.steps == (1, 2, 3)
    assert maps.values.shape == (3, 3, 2, 16, 16)
    np.testing.assert_allclose(maps.values.sum((-2, -1)), 1, atol=1e-4)
    np.testing.assert_allclose(maps.values[0], maps.values[2], atol=1e-6)
    assert np.abs(maps.values[0] - maps.values[1]).max() > 1e-6


def test_one_step_leaves_nothing_to_show(tiny_sd):
    trajectory = LatentTrajectory(steps=1)
    tiny_sd(PROMPT, num_inference_steps=1, height=64, width=64, callback_on_step_end=trajectory, output_type="latent")
    assert trajectory.kept == {}


def test_latents_are_kept_as_the_denoiser_gets_them_in_the_next_step() -> None:
    scheduler = SimpleNamespace(timesteps=[900, 600, 300], scale_model_input=lambda latents, time: latents * time)
    trajectory = LatentTrajectory(3, keep=2)
    for step in range(3):
        trajectory(SimpleNamespace(scheduler=scheduler), step, None, {"latents": torch.full((2, 1), step + 1.0)})
    assert {step: (time, latents.tolist()) for step, (time, latents) in trajectory.kept.items()} == {
        1: (600, [[600.0]] * 2),
        2: (300, [[600.0]] * 2),
    }
    unscaled = SimpleNamespace(scheduler=SimpleNamespace(timesteps=[1.0, 0.5]))
    trajectory = LatentTrajectory(2, keep=1)
    trajectory(unscaled, 0, None, {"latents": torch.ones(1)})
    assert trajectory.kept == {1: (0.5, torch.ones(1))}
