"""What steering promises: it equals a hand-written loop, and it leaves the pipeline as it was."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.errors import CaptureError, MismatchError, PromptError, SteerError, UnsupportedError
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import parse, token_indices
from learn_to_steer.steering import Steerer, profile

PROMPT = "a dog to the left of a cat"
OTHER = "a photo of a pizza above a horse"
PLAIN = "a dog and a cat"
STEPS = 4


def call(pipe: Any, prompt: Any, seeds: int | list[int] = 0, **more: Any) -> Any:
    seeds = [seeds] if isinstance(seeds, int) else seeds
    generator = [torch.Generator().manual_seed(seed) for seed in seeds]
    generator = generator[0] if len(generator) == 1 else generator
    settings = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "output_type": "latent"}
    return pipe(prompt, generator=generator, height=64, width=64, **(settings | more))


def by_hand(pipe: Any, steered: Any, prompt: str, seed: int, config_name: str) -> torch.Tensor:
    """The steered sampling loop written out: no hooks on the pipeline, one image, CFG 4."""
    config, loss_function = steered.config, steered.loss
    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    relation = parse(prompt)[0]
    columns = token_indices(pipe.tokenizer, prompt, [relation.subject_span, relation.object_span])
    weights = columns_to_weights([columns], 77)
    capture = AttentionCapture(FAMILY.attention_layers(pipe.unet), FAMILY.attention(pipe.unet))
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 16, 8, 8, generator=generator) * scheduler.init_noise_sigma
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
    for index, t in enumerate(scheduler.timesteps):
        scale = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t))
        if float(t) / 1000 >= 1 - config.window:
            fed = latents if scale == 1.0 else latents * scale
            for _ in range(config.iterations):
                leaf = fed.detach().requires_grad_()
                with capture.capture(weights, 8, 8) as maps:
                    pipe.unet(leaf, t, encoder_hidden_states=positive)
                    info = StepInfo(FAMILY.noise_level(pipe, t[None]), index)
                    loss = loss_function(maps(), [[ObjectPair(0, relation.predicate, 1)]], info).loss.sum()
                    (gradient,) = torch.autograd.grad(loss, leaf)
                fed = fed - config.step_size * (gradient / gradient.square().mean().sqrt().clamp_min(1e-12))
            latents = fed if scale == 1.0 else fed / scale
        with torch.no_grad():
            fed = torch.cat([latents, latents])
            fed = fed if scale == 1.0 else scheduler.scale_model_input(fed, t)
            unconditional, conditional = pipe.unet(
                fed, t, encoder_hidden_states=torch.cat([negative, positive])
            ).sample.chunk(2)
            guided = unconditional + 4.0 * (conditional - unconditional)
            extra = {"generator": generator} if "Multistep" not in config_name else {}
            latents = scheduler.step(guided, t, latents, **extra).prev_sample
    return latents


EXACT = ["DDIMScheduler", "DPMSolverMultistepScheduler"]
CLOSE = ["DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DEISMultistepScheduler"]


@pytest.mark.parametrize("name", [*EXACT, *CLOSE, "LCMScheduler"])
def test_equals_a_hand_written_loop(tiny_sd: Any, tiny_steerer: Any, name: str) -> None:
    tiny_sd.unet.requires_grad_(False)
    tiny_sd.scheduler = getattr(diffusers, name).from_config(tiny_sd.scheduler.config)
    steered = tiny_steerer()
    mine = call(steered, PROMPT).images
    stock = call(tiny_sd, PROMPT).images
    hand = by_hand(tiny_sd, steered, PROMPT, 0, name)
    assert (mine - stock).abs().max() > 1e-2  # it did steer
    if name in EXACT:
        assert torch.equal(mine, hand)
    else:
        torch.testing.assert_close(mine, hand, rtol=1e-3, atol=1e-3)


def test_pipeline_is_restored(tiny_sd: Any, tiny_steerer: Any) -> None:
    before = call(tiny_sd, PROMPT).images
    flags = [p.requires_grad for p in tiny_sd.unet.parameters()]
    steered = tiny_steerer(checkpointing=True)
    call(steered, PROMPT)
    assert torch.equal(call(tiny_sd, PROMPT).images, before)
    assert [p.requires_grad for p in tiny_sd.unet.parameters()] == flags
    assert not tiny_sd.unet._forward_pre_hooks
    assert "step" not in tiny_sd.scheduler.__dict__
    assert not tiny_sd.unet.is_gradient_checkpointing


def test_pipeline_is_restored_after_an_exception(tiny_sd: Any, tiny_steerer: Any) -> None:
    before = call(tiny_sd, PROMPT).images

    def broken(*_: Any) -> Any:
        raise KeyError("from a callback")

    with pytest.raises(KeyError):
        call(tiny_steerer(), PROMPT, callback_on_step_end=broken)
    assert torch.equal(call(tiny_sd, PROMPT).images, before)
    hooks = [m for m in tiny_sd.unet.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert hooks == []


def test_one_failing_step_of_the_cleanup_does_not_keep_the_others(tiny_sd: Any, tiny_steerer: Any) -> None:
    class Stuck(torch.nn.Parameter):
        def requires_grad_(self, requires_grad: bool = True) -> Any:
            if requires_grad:
                raise KeyError("while cleaning up")
            return super().requires_grad_(requires_grad)

    last = list(tiny_sd.unet.modules())[-1]  # restored before all others
    last.weight = Stuck(last.weight.data)
    with pytest.raises(KeyError, match="while cleaning up"):
        call(tiny_steerer(checkpointing=True), PROMPT)
    assert [name for name, p in tiny_sd.unet.named_parameters() if not p.requires_grad] == ["conv_out.weight"]
    assert not tiny_sd.unet.is_gradient_checkpointing
    assert [m for m in tiny_sd.unet.modules() if m._forward_pre_hooks or m._forward_hooks] == []
    with ThreadPoolExecutor(1) as other:  # the denoiser is free again
        other.submit(call, tiny_steerer(), PROMPT, timeout=0).result(timeout=60)


def test_checkpointing_changes_nothing(tiny_steerer: Any) -> None:
    plain = call(tiny_steerer(), PROMPT).images
    saved = call(tiny_steerer(checkpointing=True), PROMPT).images
    assert torch.equal(plain, saved)


def test_without_relations_it_is_the_stock_pipeline(tiny_sd: Any, tiny_steerer: Any, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        mine = call(tiny_steerer(), PLAIN)
    assert torch.equal(mine.images, call(tiny_sd, PLAIN).images)
    assert mine.steering.images[0].passes == 0
    assert "unsteered" in caplog.text


def test_unsteered_rows_of_a_mixed_batch_keep_their_bits(tiny_sd: Any, tiny_steerer: Any) -> None:
    mixed = [PROMPT, PLAIN, OTHER]
    mine = call(tiny_steerer(), mixed, [0, 1, 2])
    stock = call(tiny_sd, mixed, [0, 1, 2]).images
    assert torch.equal(mine.images[1], stock[1])
    assert not torch.equal(mine.images[0], stock[0])
    assert [image.passes > 0 for image in mine.steering.images] == [True, False, True]


def test_a_batch_equals_its_singles(tiny_steerer: Any) -> None:
    steered = tiny_steerer()
    both = call(steered, [PROMPT, OTHER], [0, 1]).images
    torch.testing.assert_close(both[:1], call(steered, PROMPT, 0).images, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(both[1:], call(steered, OTHER, 1).images, rtol=1e-3, atol=1e-3)


def test_several_images_of_a_prompt(tiny_steerer: Any) -> None:
    out = call(tiny_steerer(), [PROMPT, OTHER], [0, 1, 2, 3], num_images_per_prompt=2)
    assert [image.prompt for image in out.steering.images] == [PROMPT, PROMPT, OTHER, OTHER]
    single = call(tiny_steerer(), OTHER, 3).images
    torch.testing.assert_close(out.images[3:], single, rtol=1e-3, atol=1e-3)


def test_a_satisfied_sample_leaves_the_batch(tiny_steerer: Any) -> None:
    out = call(tiny_steerer(threshold=0.0), PROMPT)
    report = out.steering.images[0]
    assert report.converged and report.passes == 0 and report.checks == 1  # the later ones are made while sampling


def test_an_interrupt_leaves_no_mode_behind(tiny_sd: Any, tiny_steerer: Any) -> None:
    before = call(tiny_sd, PROMPT).images
    projection = FAMILY.attention_layers(tiny_sd.unet)[0].module.to_q

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = projection.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(tiny_steerer(), PROMPT)
    handle.remove()
    assert torch.overrides._get_current_function_mode() is None
    assert torch.equal(call(tiny_sd, PROMPT).images, before)


def test_a_sample_that_needs_no_move_keeps_its_bits(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.scheduler = diffusers.EulerDiscreteScheduler.from_config(tiny_sd.scheduler.config)
    assert torch.equal(call(tiny_steerer(threshold=0.0), PROMPT).images, call(tiny_sd, PROMPT).images)


@pytest.mark.parametrize("first", ["compiled", "steered"])
def test_compiled_denoisers_run_eagerly(tiny_sd: Any, tiny_steerer: Any, first: str) -> None:
    eager, steered = tiny_sd.unet, tiny_steerer()
    expected = call(steered, PROMPT)
    tiny_sd.unet = torch.compile(eager, backend="eager")
    if first == "compiled":
        steered = Steerer(steered.loss, steered.config).on(tiny_sd)
    assert torch.equal(call(steered, PROMPT).images, expected.images)
    assert tiny_sd.unet._orig_mod is eager


def test_denoisers_compiled_in_place_run_eagerly(tiny_sd: Any, tiny_steerer: Any) -> None:
    expected = call(tiny_steerer(), PROMPT)
    tiny_sd.unet.compile(backend="eager")
    compiled = tiny_sd.unet._compiled_call_impl
    assert torch.equal(call(tiny_steerer(), PROMPT).images, expected.images)
    assert tiny_sd.unet._compiled_call_impl is compiled


def test_untried_pipelines_are_refused(tiny_sd: Any, tiny_steerer: Any) -> None:
    pipe = diffusers.StableDiffusionSAGPipeline(**tiny_sd.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(UnsupportedError, match="has not been tried"):
        tiny_steerer(pipe)(PROMPT)


def test_without_guidance_one_row_a_sample_is_steered(tiny_sd: Any, tiny_steerer: Any) -> None:
    stock = call(tiny_sd, PROMPT, guidance_scale=1.0).images
    assert not torch.equal(call(tiny_steerer(), PROMPT, guidance_scale=1.0).images, stock)


def test_a_tuple_carries_the_report_last(tiny_steerer: Any) -> None:
    assert call(tiny_steerer(), PROMPT, return_dict=False)[-1].images[0].passes == STEPS


def test_the_total_cap_holds(tiny_steerer: Any) -> None:
    assert call(tiny_steerer(total_passes=3), PROMPT).steering.images[0].passes == 3


@pytest.mark.parametrize("keep", [True, False])
def test_the_norm_of_the_latents_is_kept_on_request(tiny_sd: Any, tiny_steerer: Any, keep: bool) -> None:
    steered = tiny_steerer(keep_norm=keep, rate=0.5, passes=3)
    fed: list[torch.Tensor] = []
    handle = tiny_sd.unet.conv_in.register_forward_pre_hook(lambda _, given: fed.append(given[0].detach()))
    call(steered, PROMPT, num_inference_steps=2, guidance_scale=1.0)
    handle.remove()
    norms = torch.stack([latents.norm() for latents in fed[:4]])  # three passes, then the pipeline's own call
    assert not torch.equal(fed[0], fed[3])
    assert torch.allclose(norms, norms[0], rtol=1e-5) == keep


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (48, 80)])
def test_other_shapes(tiny_sd: Any, tiny_steerer: Any, size: tuple[int, int]) -> None:
    settings = {"num_inference_steps": 2, "output_type": "np", "height": size[0], "width": size[1]}
    steered = tiny_steerer()
    picture = steered(PROMPT, generator=torch.Generator().manual_seed(0), **settings)
    assert picture.images.shape == (1, *size, 3)
    stock = tiny_sd(PROMPT, generator=torch.Generator().manual_seed(0), **settings).images
    assert np.abs(picture.images - stock).max() > 0


def test_several_relations_take_the_worst_first(tiny_steerer: Any) -> None:
    chain = "a dog to the left of a cat above a pizza"
    report = call(tiny_steerer(), chain).steering.images[0]
    assert [r.as_list() for r in report.relations] == [["dog", "left of", "cat"], ["cat", "above", "pizza"]]
    assert all(len(step.probability) == 2 for step in report.steps)


def test_given_relations_override_the_parser(tiny_steerer: Any) -> None:
    out = call(tiny_steerer(), PLAIN, relations=["cat | above | dog"])
    assert out.steering.images[0].relations[0].as_list() == ["cat", "above", "dog"]
    assert out.steering.images[0].passes > 0


def test_bad_requests_are_refused(tiny_steerer: Any) -> None:
    steered = tiny_steerer()
    with pytest.raises(PromptError, match="zebra"):
        call(steered, PLAIN, relations=["zebra | above | dog"])
    with pytest.raises(PromptError, match="above left of"):
        call(steered, PLAIN, relations=["cat | above left of | dog"])
    with pytest.raises(PromptError, match="names no relation"):
        call(steered, PLAIN, strict=True)
    with pytest.raises(PromptError, match="prompt_embeds"):
        steered(None)


def test_embeddings_need_columns(tiny_sd: Any, tiny_steerer: Any) -> None:
    positive, negative = tiny_sd.encode_prompt(PROMPT, "cpu", 1, True)
    embeds = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    steered = tiny_steerer()
    with pytest.raises(PromptError, match="columns"):
        call(steered, None, **embeds)
    relation = parse(PROMPT)[0]
    dog, cat = token_indices(tiny_sd.tokenizer, PROMPT, [relation.subject_span, relation.object_span])
    given = call(steered, None, relations=[["dog", "left of", "cat"]], columns=[{"dog": dog, "cat": cat}], **embeds)
    assert torch.equal(given.images, call(steered, PROMPT).images)


@pytest.mark.parametrize(
    "name", ["PNDMScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"]
)
def test_schedulers_that_lose_the_move_are_refused(tiny_sd: Any, tiny_steerer: Any, name: str) -> None:
    tiny_sd.scheduler = getattr(diffusers, name).from_config(tiny_sd.scheduler.config)
    with pytest.raises(UnsupportedError, match="DDIMScheduler"):
        call(tiny_steerer(), PROMPT)


def test_sliced_attention_is_refused(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.enable_attention_slicing(1)
    with pytest.raises(CaptureError, match="disable_attention_slicing"):
        call(tiny_steerer(), PROMPT)


def test_inference_mode_is_refused(tiny_steerer: Any) -> None:
    with torch.inference_mode(), pytest.raises(UnsupportedError, match="inference_mode"):
        call(tiny_steerer(), PROMPT)


def test_a_replaced_scheduler_is_noticed(tiny_sd: Any, tiny_steerer: Any) -> None:
    def replaced(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
        return values

    with pytest.raises(SteerError, match="replaced"):
        call(tiny_steerer(), PROMPT, callback_on_step_end=replaced)


def test_a_foreign_classifier_is_refused(tiny_sd: Any, tiny_steerer: Any) -> None:
    loss_function = tiny_steerer().loss
    tiny_sd.unet = diffusers.UNet2DConditionModel.from_config({**tiny_sd.unet.config, "attention_head_dim": 4})
    with pytest.raises(MismatchError, match="attention maps"):
        Steerer(loss_function).on(tiny_sd)


def test_a_gradient_that_is_not_finite_backs_off(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered = tiny_steerer(passes=6)
    sound = steered.loss

    class Broken:
        spec = sound.spec

        def predicates(self) -> tuple[str, ...]:
            return ("left of",)

        def __call__(self, maps: Any, pairs: Any, info: Any) -> Any:
            output = sound(maps, pairs, info)
            return type(output)(output.loss * float("nan"), output.probability)

    steered.loss = Broken()
    out = call(steered, PROMPT)
    assert torch.equal(out.images, call(tiny_sd, PROMPT).images)
    assert out.steering.images[0].backoffs == 2 * 4 and "not finite" in out.steering.images[0].note


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_steers_and_stays_finite(tiny_sd: Any, tiny_steerer: Any, dtype: torch.dtype) -> None:
    """Maps, loss and move are fp32 inside; an fp16 gradient is scaled so that it does not underflow."""
    tiny_sd.to(dtype)
    stock = call(tiny_sd, PROMPT).images
    out = call(tiny_steerer(), PROMPT)
    assert out.images.dtype == dtype and out.images.isfinite().all()
    assert (out.images - stock).abs().max() > 1e-2
    assert out.steering.images[0].backoffs == 0 and out.steering.images[0].passes == STEPS


def test_the_official_profile_takes_the_rate_of_the_kind_of_model(tiny_sd, random_classifier) -> None:
    loss_function = Learned(random_classifier(tiny_sd))
    assert Steerer(loss_function, profile("official")).on(tiny_sd).config.step_size == 5.0
    assert Steerer(loss_function, profile("official", step_size=3.0)).on(tiny_sd).config.step_size == 3.0
