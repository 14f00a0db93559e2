"""What keeps an update sound: loss scaling, backing off, the pull to the prior, and relations taken in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learn_to_steer.families import Call
from learn_to_steer.losses.base import LossOutput, ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import AttentionMaps
from learn_to_steer.steering import ImageReport
from learn_to_steer.steering.noise_search import MAX_DIVERGENCE, pull_to_prior, search
from learn_to_steer.steering.state import CallState, DenoisingStep

PROMPT = "a dog to the left of a cat"
CHAIN = "a dog to the left of a cat above a pizza"


class Changed:
    """A loss whose loss goes through ``change``, which is told how often it was asked before."""

    def __init__(self, sound: Any, change: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
        self.sound, self.spec, self.predicates, self.change = sound, sound.spec, sound.predicates, change
        self.asked = 0

    def __call__(self, *given: Any) -> LossOutput:
        output = self.sound(*given)
        self.asked += 1
        return replace(output, loss=self.change(output.loss, self.asked - 1))


def draw(pipe: Any, prompt: str = PROMPT, **more: Any) -> Any:
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent", "height": 64, "width": 64}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **(settings | more))


@contextmanager
def inputs(pipe: Any) -> Iterator[list[torch.Tensor]]:
    """What the denoiser is fed inside, call by call."""
    fed: list[torch.Tensor] = []
    handle = pipe.unet.conv_in.register_forward_pre_hook(lambda _, given: fed.append(given[0].detach().clone()))
    try:
        yield fed
    finally:
        handle.remove()


def test_a_small_gradient_does_not_underflow_in_fp16(tiny_sd: Any, tiny_steerer: Any) -> None:
    """The unscaled gradient of such a loss has no fp16 number but zero, and nothing would move."""
    tiny_sd.to(torch.float16)
    steered = tiny_steerer(passes=1)
    steered.loss = Changed(steered.loss, lambda loss, _: loss * 1e-3)
    assert not torch.equal(draw(steered).images, draw(tiny_sd).images)


def test_backing_off_takes_half_the_step(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered = tiny_steerer(passes=3)
    steered.loss = Changed(steered.loss, lambda loss, asked: loss * float("nan") if asked == 1 else loss)
    with inputs(tiny_sd) as fed:
        out = draw(steered)
    start, whole, half = fed[:3]
    assert out.steering.images[0].backoffs == 1
    assert (whole - start).abs().max() > 1e-3
    torch.testing.assert_close(half - start, (whole - start) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_broken_weights_are_reported(
    tiny_sd: Any, tiny_steerer: Any, caplog: pytest.LogCaptureFixture, dtype: torch.dtype
) -> None:
    """Two failures in a step are within what one step allows; in fp16 they only lower the scale of the loss."""
    torch.nn.init.constant_(tiny_sd.unet.mid_block.resnets[0].conv1.weight, float("nan"))
    tiny_sd.to(dtype)
    with caplog.at_level(logging.WARNING):
        report = draw(tiny_steerer(), num_inference_steps=4).steering.images[0]
    assert "not finite in 4 of 4 iterations" in report.note and "weights" in report.note
    assert report.note in caplog.text
    assert report.probability == [] and not report.converged


def test_failures_are_counted_over_the_call(tiny_sd: Any, tiny_steerer: Any, caplog: pytest.LogCaptureFixture) -> None:
    steered = tiny_steerer(check_while_sampling=False)
    steered.loss = Changed(steered.loss, lambda loss, asked: loss * float("nan") if asked in (0, 2) else loss)
    with caplog.at_level(logging.WARNING):
        report = draw(steered, num_inference_steps=4).steering.images[0]
    assert report.backoffs == 2 and "not finite in 2 of 4 iterations" in report.note and report.note in caplog.text


def test_failures_of_the_noise_search_are_counted(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered = tiny_steerer(search=(1, 3, 0), passes=1)
    steered.loss = Changed(steered.loss, lambda loss, asked: loss * float("nan") if asked == 0 else loss)
    report = draw(steered).steering.images[0]
    assert report.backoffs == 1 and "not finite in 1 of 2 iterations" in report.note


def test_a_sound_call_has_no_note(tiny_sd: Any, tiny_steerer: Any) -> None:
    assert draw(tiny_steerer()).steering.images[0].note == ""


def test_relations_are_taken_in_turn(tiny_sd: Any, tiny_steerer: Any) -> None:
    """The loss of the second relation is made flat, so that every second iteration moves nothing."""
    steered = tiny_steerer(passes=4, pick="round-robin")
    steered.loss = Changed(
        steered.loss, lambda loss, _: torch.stack([loss[:, 0], loss[:, 1].detach() + 0 * loss[:, 1]], dim=1)
    )
    with inputs(tiny_sd) as fed:
        draw(steered, CHAIN)
    moved = [not torch.equal(before, after) for before, after in pairwise(fed)][:4]
    assert moved == [True, False, True, False]


class Slope:
    """Stands in for the loop: a loss that falls evenly the larger the noise is, and no relation is ever probable."""

    config = SimpleNamespace(search=(1, 30, 0))
    targets = (SimpleNamespace(object_pairs=(ObjectPair(0, "left of", 1),)),)

    @contextmanager
    def loss_at(self, step: Any, latents: torch.Tensor, *_: Any) -> Iterator[tuple[LossOutput, torch.Tensor]]:
        leaf = latents.detach().requires_grad_()
        yield LossOutput(-1e-3 * leaf.sum().reshape(1, 1), torch.zeros(1, 1)), leaf


def test_a_searched_noise_stays_near_the_prior() -> None:
    """Thirty iterations of Adam alone would move it twice as far."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    step = DenoisingStep(Call(noise, torch.tensor(900), {}), StepInfo(1.0, 0))
    state = CallState([ImageReport("", [])], [0])
    moved = (search(Slope(), step, noise, state) - noise).square().mean().sqrt()  # type: ignore[arg-type]
    assert state.iterations == [30] and state.reports[0].passes == 30
    assert 1e-2 < moved < 2 * (2 * MAX_DIVERGENCE) ** 0.5


def test_the_pull_ends_near_the_prior() -> None:
    mean, log_variance = torch.full((64,), 0.3), torch.full((64,), 0.4)
    before = mean.abs().max()
    pull_to_prior(mean, log_variance, torch.optim.Adam([mean, log_variance], lr=1e-2, eps=1e-3))
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).mean()
    assert mean.abs().max() < before and divergence < 0.05


def test_the_classifier_follows_the_maps(tiny_sd: Any, random_classifier: Any) -> None:
    """A pipeline may be moved to another device after its classifier was loaded."""
    loss_function = Learned(random_classifier(tiny_sd).requires_grad_(False))
    channels = loss_function.classifier.config.channels
    maps = AttentionMaps((torch.zeros(1, 2, channels, 8, 8, device="meta"),))
    output = loss_function(maps, [[ObjectPair(0, "left of", 1)]], StepInfo(0.9, 0))
    assert output.loss.device.type == "meta"
    assert {p.device.type for p in loss_function.classifier.parameters()} == {"meta"}
