"""Images are checked in the forward that the pipeline makes anyway, and satisfied ones rest in the next step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from learn_to_steer import registry
from learn_to_steer.families import find
from learn_to_steer.losses.base import LossOutput
from learn_to_steer.steering import Steerer, profile

PROMPT, OTHER, PLAIN = "a dog to the left of a cat", "a photo of a pizza above a horse", "a dog and a cat"
STEPS = 8  # four of them are steered


def call(pipe: Any, prompt: Any, **more: Any) -> Any:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    settings = {"num_inference_steps": STEPS, "output_type": "latent", "height": 64, "width": 64}
    return pipe(prompt, generator=generator, **(settings | more))


def count_forwards(denoiser: Any) -> list[int]:
    """A list that receives the batch size of every forward."""
    rows: list[int] = []
    denoiser.register_forward_pre_hook(lambda *given: rows.append(len(next(iter(given[2].values())))), with_kwargs=True)
    return rows


class Probable:
    """A loss whose probabilities are dictated: ``probability(evaluation, sample)``, evaluations counted from 0."""

    def __init__(self, sound: Any, probability: Any) -> None:
        self.sound, self.spec, self.probability, self.evaluations = sound, sound.spec, probability, 0
        self.seen: list[float] = []

    def predicates(self) -> tuple[str, ...]:
        return tuple(self.sound.predicates())

    def __call__(self, maps: Any, pairs: Any, info: Any) -> LossOutput:
        output = self.sound(maps, pairs, info)
        self.seen.append(output.probability[0, 0].item())
        rows = [[self.probability(self.evaluations, n)] for n in range(len(pairs))]
        self.evaluations += 1
        return replace(output, probability=torch.tensor(rows))


def test_no_forward_is_made_twice(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered, rows = tiny_steerer(threshold=0.0), count_forwards(tiny_sd.unet)
    report = call(steered, PROMPT, guidance_scale=4.0).steering.images[0]
    assert (report.passes, report.checks, len(report.steps)) == (0, 1, STEPS // 2)
    assert sorted(rows) == [1] + [2] * STEPS  # one evaluation before the first step, then the pipeline's own


def test_a_check_of_its_own_every_step(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered, rows = tiny_steerer(threshold=0.0, check_while_sampling=False), count_forwards(tiny_sd.unet)
    report = call(steered, PROMPT, guidance_scale=4.0).steering.images[0]
    assert (report.passes, report.checks) == (0, STEPS // 2)
    assert sorted(rows) == [1] * (STEPS // 2) + [2] * STEPS


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_checking_sees_what_an_evaluation_would(tiny_steerer: Any, guidance: float) -> None:
    """Without iterations, the latents of a check are those of the evaluation that the next call makes there."""
    while_sampling = tiny_steerer(max_iterations=0)
    seen = call(while_sampling, [PLAIN, OTHER, PROMPT], guidance_scale=guidance).steering.images
    own = tiny_steerer(rate=0.0, passes=1, check_while_sampling=False)  # every move is of length 0
    expected = call(own, [PLAIN, OTHER, PROMPT], guidance_scale=guidance).steering.images
    assert not seen[0].steps and len(seen[1].steps) == STEPS // 2
    for image, other in zip(seen[1:], expected[1:], strict=True):
        for step, same in zip(image.steps, other.steps, strict=True):
            torch.testing.assert_close(step.probability, same.probability, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["for-spatial", "initno"])
def test_checking_with_a_published_loss(tiny_sd: Any, name: str) -> None:
    """It reads every text column, and InitNO's self-attention as well."""
    loss = registry.load("losses", name).build(find(tiny_sd).layout(tiny_sd.unet))

    def images(**settings: Any) -> Any:
        config = profile("default", schedule=loss.schedule).changed(search=None, refinement=(), window=0.5, **settings)
        return call(Steerer(loss, config).on(tiny_sd), [PLAIN, OTHER, PROMPT], guidance_scale=4.0).steering.images

    seen, expected = images(max_iterations=0, check_while_sampling=True), images(rate=0.0, passes=1)
    assert not seen[0].steps and len(seen[1].steps) == len(expected[1].steps) > 1
    for image, other in zip(seen[1:], expected[1:], strict=True):
        for step, same in zip(image.steps, other.steps, strict=True):
            torch.testing.assert_close(step.probability, same.probability, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guided", [{}, {"true_cfg_scale": 3.0, "negative_prompt": ["a blurry photo"] * 2}])
def test_checking_flux(tiny_flux: Any, steer: Any, guided: dict[str, Any]) -> None:
    """With true guidance the denoiser is called twice in a step; the first call has the prompts."""
    settings: dict[str, Any] = {"max_sequence_length": 48, "guidance_scale": 3.5} | guided
    seen = call(steer(tiny_flux, max_iterations=0), [PROMPT, PLAIN], **settings).steering.images[0]
    own = steer(tiny_flux, rate=0.0, passes=1, check_while_sampling=False)
    expected = call(own, [PROMPT, PLAIN], **settings).steering.images[0]
    assert len(seen.steps) == len(expected.steps) > 1
    for step, same in zip(seen.steps, expected.steps, strict=True):
        torch.testing.assert_close(step.probability, same.probability, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checking_changes_no_bit(tiny_sd: Any, tiny_steerer: Any, dtype: torch.dtype) -> None:
    tiny_sd.to(dtype=dtype)
    plain = call(tiny_sd, [PROMPT, OTHER], guidance_scale=4.0).images
    out = call(tiny_steerer(max_iterations=0), [PROMPT, OTHER], guidance_scale=4.0)
    assert all(image.probability for image in out.steering.images)
    assert torch.equal(out.images, plain)


def test_a_satisfied_image_rests_until_it_is_not(tiny_steerer: Any) -> None:
    """Evaluations: a pass, then the check of step 0 (0.9), of step 1 (0.9), of step 2 (0.1), a pass, the last check."""
    steered = tiny_steerer(threshold=0.5, passes=1)
    steered.loss = Probable(steered.loss, lambda evaluation, _: [0.1, 0.9, 0.9, 0.1, 0.1, 0.9][evaluation])
    report = call(steered, PROMPT).steering.images[0]
    assert [step.passes for step in report.steps] == [1, 0, 0, 1]
    assert [step.probability for step in report.steps] == [pytest.approx([p]) for p in (0.9, 0.9, 0.1, 0.9)]
    assert report.converged and report.checks == 0


def test_a_check_that_is_not_finite_satisfies_nothing(tiny_steerer: Any) -> None:
    steered = tiny_steerer(threshold=0.5, passes=1)
    sound = Probable(steered.loss, lambda evaluation, _: float("nan") if evaluation % 2 else 0.1)

    def loss(maps: Any, pairs: Any, info: Any) -> LossOutput:
        output = sound(maps, pairs, info)
        return replace(output, loss=output.loss + output.probability * 0)  # not finite where the probability is not

    steered.loss = type(
        "Broken", (), {"__call__": staticmethod(loss), "spec": sound.spec, "predicates": sound.predicates}
    )()
    report = call(steered, PROMPT).steering.images[0]
    assert [step.passes for step in report.steps] == [1] * (STEPS // 2)
    assert report.probability == [pytest.approx(0.1)] and not report.converged and not report.backoffs


def test_each_image_rests_on_its_own(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered, rows = tiny_steerer(threshold=0.5, passes=1), count_forwards(tiny_sd.unet)
    steered.loss = Probable(steered.loss, lambda evaluation, sample: 0.9 if evaluation and sample == 0 else 0.1)
    out = call(steered, [PROMPT, OTHER], guidance_scale=1.0)
    # From the second step on only the second image is evaluated, as sample 0: so it is satisfied before it is moved.
    assert [[step.passes for step in image.steps] for image in out.steering.images] == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert sorted(rows) == [1, 1, 1, *[2] * (STEPS + 1)]


def test_the_verdict_is_on_the_moved_latents(tiny_steerer: Any) -> None:
    steered = tiny_steerer(passes=1)
    steered.loss = Probable(steered.loss, lambda *_: 0.1)
    report = call(steered, PROMPT).steering.images[0]
    passes, checks = steered.loss.seen[0::2], steered.loss.seen[1::2]
    assert report.passes == len(passes) == len(checks) == STEPS // 2
    assert passes != checks


def test_published_schedules_check_on_their_own() -> None:
    assert profile("default").check_while_sampling
    assert not profile("default", schedule={"rate": 20.0}).check_while_sampling
    assert not profile("official").check_while_sampling and not profile("equal").check_while_sampling
    assert profile("default", schedule={"check_while_sampling": True, "rate": 20.0}).check_while_sampling
