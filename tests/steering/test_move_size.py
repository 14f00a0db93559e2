"""A move is the same in the denoiser's input, whatever the scheduler makes of its own latents."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import parse, token_indices

PROMPT = "a dog to the left of a cat"
STEPS = 2
SETTINGS: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "latent"}
SETTINGS |= {"height": 64, "width": 64}


def draw(pipe: Any, prompt: Any = PROMPT, seeds: tuple[int, ...] = (0,)) -> Any:
    return pipe(prompt, generator=[torch.Generator().manual_seed(seed) for seed in seeds], **SETTINGS)


def gradient_at(pipe: Any, loss: Any, fed: torch.Tensor) -> torch.Tensor:
    """The loss's gradient with respect to the denoiser's input in the first step, by hand."""
    pipe.scheduler.set_timesteps(STEPS)
    time = pipe.scheduler.timesteps[0]
    relation = parse(PROMPT)[0]
    columns = token_indices(pipe.tokenizer, PROMPT, [relation.subject_span, relation.object_span])
    capture = AttentionCapture(FAMILY.attention_layers(pipe.unet), FAMILY.attention(pipe.unet))
    with torch.no_grad():
        text, _ = pipe.encode_prompt(PROMPT, "cpu", 1, False)
    leaf = fed.clone().requires_grad_()
    with capture.capture(columns_to_weights([columns], 77), 8, 8) as maps:
        pipe.unet(leaf, time, encoder_hidden_states=text)
        info = StepInfo(FAMILY.noise_level(pipe, time[None]), 0, STEPS)
        value = loss(maps(), [[ObjectPair(0, "left of", 1)]], info).loss.sum()
        return torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("name", FAMILY.schedulers)
def test_moves_are_those_of_the_denoisers_input(
    tiny_sd: Any, tiny_steerer: Any, monkeypatch: pytest.MonkeyPatch, name: str, normalised: bool
) -> None:
    kind = getattr(diffusers, name)
    tiny_sd.scheduler = kind.from_config(tiny_sd.scheduler.config)
    size = 0.02 if normalised else 50.0
    steered = tiny_steerer(passes=1, window=1.0, normalised=normalised, step_size=size)
    fed: list[torch.Tensor] = []
    stepped: list[torch.Tensor] = []
    step = kind.step

    def watched(self: Any, model_output: Any, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        scaled = self.scale_model_input(sample, timestep) if hasattr(self, "scale_model_input") else sample
        stepped.append(scaled)
        return step(self, model_output, timestep, sample, *args, **kwargs)

    watched.__wrapped__ = step  # type: ignore[attr-defined]  # pipelines read the signature
    monkeypatch.setattr(kind, "step", watched)
    handle = tiny_sd.unet.conv_in.register_forward_pre_hook(lambda _, given: fed.append(given[0].detach().clone()))
    draw(steered)
    handle.remove()
    before, after = fed[:2]
    gradient = gradient_at(tiny_sd, steered.loss, before)
    direction = gradient / gradient.square().mean().sqrt() if normalised else gradient
    torch.testing.assert_close(after - before, -size * direction, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(stepped[0], after)  # the scheduler steps from the moved latents
    if normalised:
        assert (after - before).square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-3)


def test_rows_that_are_not_moved_keep_their_bits(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.scheduler = diffusers.EulerDiscreteScheduler.from_config(tiny_sd.scheduler.config)
    prompts = [PROMPT, "a dog and a cat"]
    mine, stock = draw(tiny_steerer(), prompts, (0, 1)).images, draw(tiny_sd, prompts, (0, 1)).images
    assert torch.equal(mine[1], stock[1]) and not torch.equal(mine[0], stock[0])
