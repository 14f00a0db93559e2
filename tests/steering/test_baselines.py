"""Handcrafted losses through the same steering: their schedules, kinds of update, and a run of each."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer import registry
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.losses.base import NEVER, ObjectPair, StepInfo
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import parse, token_indices
from learn_to_steer.steering import Steerer, SteeringConfig, profile
from learn_to_steer.steering.loop import refinement_at, step_size_at

PROMPT = "a dog to the left of a cat"
HANDCRAFTED = [name for name in registry.names("losses") if name != "learned"]
LIGHT = {"refinement": ((0.0, 2, 0.99),), "search": None}  # the published ones may take a hundred passes


def built(name: str, pipe: Any) -> Any:
    family = find(pipe)
    return registry.load("losses", name).build(family.layout(getattr(pipe, family.denoiser)))


def steered(name: str, pipe: Any, **settings: Any) -> Any:
    loss_function = built(name, pipe)
    config = profile("default", schedule=loss_function.schedule).changed(**settings)
    return Steerer(loss_function, config).on(pipe)


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    settings = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "latent", "height": 64, "width": 64}
    return pipe(prompt, **({"generator": torch.Generator().manual_seed(0)} | settings | more))


def spread(steps: list[Any]) -> dict[int, int]:
    return {step.step: step.passes for step in steps}


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_every_baseline_steers_a_pipeline(tiny_sd: Any, name: str) -> None:
    out = draw(steered(name, tiny_sd, **LIGHT))
    report = out.steering.images[0]
    assert out.images.isfinite().all() and report.backoffs == 0
    assert (out.images - draw(tiny_sd).images).abs().max() > 1e-4
    assert report.passes > 0 and all(0 <= step.probability[0] <= 1 for step in report.steps)
    assert out.steering.config["profile"] == name
    assert not tiny_sd.unet._forward_pre_hooks and "step" not in tiny_sd.scheduler.__dict__


@pytest.mark.parametrize("name", ["for-spatial", "conform", "initno"])
def test_a_batch_equals_its_singles(tiny_sd: Any, name: str) -> None:
    """Losses that remember do so for each image."""
    other = "a photo of a pizza above a horse"
    settings = {"num_inference_steps": 6, "guidance_scale": 2.0}
    search = (2, 2, 1) if name == "initno" else None
    pipe = steered(name, tiny_sd, refinement=((0.0, 1, 2.0),), rate=1.0, search=search)

    def seeds(*numbers: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(number) for number in numbers]

    both = draw(pipe, [PROMPT, "a dog and a cat", other], generator=seeds(0, 1, 2), **settings).images
    alone = draw(pipe, other, generator=seeds(2), **settings).images
    torch.testing.assert_close(both[2:], alone, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["for-spatial", "for-logistic"])
def test_those_for_flux_steer_flux(tiny_flux: Any, name: str) -> None:
    settings = {"max_sequence_length": 48, "guidance_scale": 3.5}
    out = draw(steered(name, tiny_flux), **settings)
    assert spread(out.steering.images[0].steps) == {0: 1, 1: 1}
    assert (out.images - draw(tiny_flux, **settings).images).abs().max() > 1e-5


def test_what_cannot_run_on_flux_says_so(tiny_flux: Any, tiny_sd: Any) -> None:
    with pytest.raises(UnsupportedError, match="for-spatial"):
        built("storm-fixed", tiny_flux)
    with pytest.raises(UnsupportedError, match="for-spatial"):
        Steerer(built("infsplign", tiny_sd)).on(tiny_flux)


def gradients(
    pipe: Any, loss_function: Any, positive: torch.Tensor, latents: torch.Tensor, t: Any, info: StepInfo
) -> Any:
    """The loss's gradient, by hand: all columns read, then averaged by the loss or here."""
    relation = parse(PROMPT)[0]
    columns = token_indices(pipe.tokenizer, PROMPT, [relation.subject_span, relation.object_span])
    weights = columns_to_weights([columns], 77)
    every = loss_function.spec.columns == "every"
    leaf = latents.detach().requires_grad_()
    family = find(pipe)
    capture = AttentionCapture(family.attention_layers(pipe.unet), family.attention(pipe.unet), loss_function.spec)
    with capture.capture(torch.eye(77)[None] if every else weights, 8, 8) as read:
        pipe.unet(leaf, t, encoder_hidden_states=positive)
        maps = read()
        if every:
            object.__setattr__(maps, "objects", weights)
            object.__setattr__(maps, "words", torch.ones(1, 77, dtype=torch.bool))
        loss = loss_function(maps, [[ObjectPair(0, "left of", 1)]], info).loss.sum()
        return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("name", ["for-spatial", "infsplign"])
def test_equals_a_hand_written_loop(tiny_sd: Any, name: str) -> None:
    """One updates the latents by 20 sqrt(linspace(1, 1/2)), the other the guided noise by 1000, every step."""
    tiny_sd.unet.requires_grad_(False)
    loss_function, scheduler, steps = built(name, tiny_sd), tiny_sd.scheduler, 4
    mine = draw(steered(name, tiny_sd)).images
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        positive, negative = tiny_sd.encode_prompt(PROMPT, "cpu", 1, True)
    for index, t in enumerate(scheduler.timesteps):
        push = torch.zeros_like(latents)
        if name == "infsplign" or index < steps / 2:
            info = StepInfo(0.0, index, steps)
            push = gradients(tiny_sd, loss_function, positive, latents, t, info)
        if name == "for-spatial":
            latents = latents - 20 * (1 - 0.5 * index / (steps - 1)) ** 0.5 * push
        with torch.no_grad():
            pair = tiny_sd.unet(torch.cat([latents] * 2), t, encoder_hidden_states=torch.cat([negative, positive]))
            unconditional, conditional = pair.sample.chunk(2)
            guided = unconditional + 4.0 * (conditional - unconditional)
            if name == "infsplign":
                guided = guided + 1000.0 * push
            latents = scheduler.step(guided, t, latents).prev_sample
    torch.testing.assert_close(mine, latents, rtol=1e-4, atol=1e-4)
    assert (mine - draw(tiny_sd).images).abs().max() > 1e-3


def test_noise_is_not_added_to_what_is_no_noise(tiny_sd: Any) -> None:
    tiny_sd.scheduler = diffusers.DDIMScheduler.from_config(tiny_sd.scheduler.config, prediction_type="v_prediction")
    with pytest.raises(UnsupportedError, match="v_prediction"):
        steered("infsplign", tiny_sd)
    latents = Steerer(built("infsplign", tiny_sd), profile("equal").changed(passes=1)).on(tiny_sd)
    assert draw(latents).steering.images[0].passes == 2


def test_refinement_passes_come_before_the_regular_one(tiny_sd: Any) -> None:
    rows = ((0.0, 3, 2.0), (0.5, 2, 2.0))  # a target that is never met
    report = draw(steered("for-spatial", tiny_sd, refinement=rows, window=1.0)).steering.images[0]
    assert spread(report.steps) == {0: 4, 1: 1, 2: 3, 3: 1}
    met = draw(steered("for-spatial", tiny_sd, refinement=((0.0, 3, 0.0),))).steering.images[0]
    assert spread(met.steps) == {0: 1, 1: 1}


def test_a_closed_gate_lets_no_refinement_through(tiny_sd: Any) -> None:
    """Released STORM refines where the order is right already, which one of two opposite prompts has."""
    passes = []
    for prompt in (PROMPT, "a cat to the left of a dog"):
        out = draw(steered("storm-released", tiny_sd, refinement=((0.25, 4, 2.0),)), prompt)
        passes.append(spread(out.steering.images[0].steps))
    assert all(0 not in found for found in passes)  # nothing before the very first step
    assert passes[0][1] in (1, 5) and passes[1][1] in (1, 5)


def test_gradients_are_clipped(tiny_sd: Any) -> None:
    fed: list[torch.Tensor] = []
    handle = tiny_sd.unet.conv_in.register_forward_pre_hook(lambda _, given: fed.append(given[0].detach()))
    settings = {"clip": 1e-3, "decay": 1.0, "rate": 2.0, "passes": 2}
    draw(steered("for-spatial", tiny_sd, **settings), guidance_scale=1.0)
    handle.remove()
    torch.testing.assert_close((fed[1] - fed[0]).norm().item(), 2e-3, rtol=1e-3, atol=0)


def test_rates_follow_the_published_courses() -> None:
    family = SteeringConfig(step_size=20.0, decay=0.5)
    found = [step_size_at(family, StepInfo(0.9, step)) for step in (0, 10, 20, 24)]
    assert found == pytest.approx([20, 18.952, 17.843, 17.379], abs=1e-3)
    assert step_size_at(SteeringConfig(step_size=30.0, by_variance=True), StepInfo(0.5, 3)) == pytest.approx(7.5)
    assert step_size_at(SteeringConfig(step_size=0.04), StepInfo(0.5, 7)) == 0.04
    rows = SteeringConfig(refinement=((0.0, 20, 0.05), (0.2, 20, 0.5), (0.4, 20, 0.8)))
    assert [step for step in range(50) if refinement_at(rows, StepInfo(0.9, step))[0]] == [0, 10, 20]
    found = [refinement_at(rows, StepInfo(0.9, step, 25)) for step in (0, 4, 5, 10)]
    assert found == [
        (20, 0.05),
        (0, 0.0),
        (20, 0.5),
        (20, 0.8),
    ]


def test_the_published_schedule_is_the_default_one(tiny_sd: Any) -> None:
    loss_function = built("attend-and-excite", tiny_sd)
    assert Steerer(loss_function).config == profile("default", schedule=loss_function.schedule)
    assert Steerer(loss_function).config.step_size == 20 and not Steerer(loss_function).config.normalised
    equal = profile("equal", schedule=loss_function.schedule)
    assert equal == SteeringConfig(profile="equal", threshold=NEVER, check_while_sampling=False)


def test_the_search_of_the_noise_spends_what_it_is_given(tiny_sd: Any) -> None:
    """A random model never succeeds: all rounds are made, then the last resort; the latents are left alone after."""
    settings = {"refinement": (), "window": 0.0, "search": (2, 3, 4)}
    out = draw(steered("initno", tiny_sd, **settings))
    assert [step.passes for step in out.steering.images[0].steps] == []
    out = draw(steered("initno", tiny_sd, **(settings | {"window": 0.1, "rate": 0.0})))
    assert [step.passes for step in out.steering.images[0].steps] == [2 * 3 + 4, 1]
    assert (out.images - draw(tiny_sd).images).abs().max() > 1e-4


def test_the_searched_noise_is_better_and_still_noise(tiny_sd: Any) -> None:
    fed: list[torch.Tensor] = []
    handle = tiny_sd.unet.conv_in.register_forward_pre_hook(lambda _, given: fed.append(given[0].detach()))
    pipe = steered("initno", tiny_sd, refinement=(), window=0.1, rate=0.0, search=(1, 30, 0))
    losses: list[float] = []
    loss_function = pipe.loss

    class Watched:
        spec, schedule, predicates = loss_function.spec, loss_function.schedule, loss_function.predicates

        def __call__(self, *given: Any) -> Any:
            output = loss_function(*given)
            losses.append(output.search.item())
            return output

    pipe.loss = Watched()
    draw(pipe, num_inference_steps=2, guidance_scale=1.0)
    handle.remove()
    assert min(losses[1:30]) < losses[0]
    assert not torch.equal(fed[0], fed[29]) and abs(fed[29].std().item() - 1) < 0.1
