"""FLUX through the same steering: flow Euler bit for bit, true CFG, second prompts, packed latents of any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families.flux import FAMILY
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import parse, token_indices
from learn_to_steer.steering.loop import SteeringLoop
from learn_to_steer.steering.state import CallState, DenoisingStep

PROMPT = "a dog to the left of a cat"
STEPS = 4


def draw(pipe: Any, prompt: Any = PROMPT, seed: int = 0, **more: Any) -> Any:
    settings = {"height": 64, "width": 64, "num_inference_steps": STEPS, "max_sequence_length": 48}
    settings |= {"guidance_scale": 3.5, "output_type": "latent", "generator": torch.Generator().manual_seed(seed)}
    return pipe(prompt, **(settings | more))


def by_hand(pipe: Any, steered: Any, seed: int) -> torch.Tensor:
    """The steered loop written out: no hooks on the pipeline, one image."""
    config, loss_function, transformer = steered.config, steered.loss, pipe.transformer
    with torch.no_grad():
        text, pooled, text_ids = pipe.encode_prompt(PROMPT, None, device="cpu", max_sequence_length=48)
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(seed))
    latents = FluxPipeline._pack_latents(noise, 1, 16, 8, 8)
    ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
    pipe.scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / STEPS, STEPS).tolist())
    relation = parse(PROMPT)[0]
    columns = token_indices(pipe.tokenizer_2, PROMPT, [relation.subject_span, relation.object_span], max_length=48)
    weights = columns_to_weights([columns], 48)
    capture = AttentionCapture(FAMILY.attention_layers(transformer))

    def predict(fed: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given = {"encoder_hidden_states": text, "pooled_projections": pooled, "img_ids": ids, "txt_ids": text_ids}
        return transformer(fed, timestep=t.expand(1) / 1000, guidance=torch.full((1,), 3.5), **given).sample

    for index, t in enumerate(pipe.scheduler.timesteps):
        if 1 - float(t) / 1000 <= config.window:
            for _ in range(config.iterations):
                leaf = latents.detach().requires_grad_()
                with capture.capture(weights, 4, 4) as maps:
                    predict(leaf, t)
                    loss = loss_function(
                        maps(), [[ObjectPair(0, "left of", 1)]], StepInfo(float(t) / 1000, index)
                    ).loss.sum()
                    (gradient,) = torch.autograd.grad(loss, leaf)
                latents = latents - config.step_size * (gradient / gradient.square().mean().sqrt().clamp_min(1e-12))
        with torch.no_grad():
            latents = pipe.scheduler.step(predict(latents, t), t, latents).prev_sample
    return latents


def test_equals_a_hand_written_loop(tiny_flux: Any, steer: Any) -> None:
    tiny_flux.transformer.requires_grad_(False)
    steered = steer(tiny_flux)
    mine = draw(steered).images
    assert (mine - draw(tiny_flux).images).abs().max() > 1e-2
    assert torch.equal(mine, by_hand(tiny_flux, steered, 0))


def test_initial_noise_alone(tiny_flux: Any, steer: Any) -> None:
    report = draw(steer(tiny_flux, window=0.2)).steering.images[0]
    assert [step.step for step in report.steps] == [0] and report.steps[0].level == 1.0


def test_a_true_guidance_call_belongs_to_the_same_step(tiny_flux: Any, steer: Any) -> None:
    guided = {"negative_prompt": "a pig", "true_cfg_scale": 3.0}
    out = draw(steer(tiny_flux), **guided)
    assert [step.step for step in out.steering.images[0].steps] == [0, 1, 2]
    assert (out.images - draw(tiny_flux, **guided).images).abs().max() > 1e-2
    seen = []
    handle = tiny_flux.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: None if torch.is_grad_enabled() else seen.append(kwargs["hidden_states"].clone()),
        with_kwargs=True,
    )
    draw(steer(tiny_flux), **guided)
    handle.remove()
    # Our hook rewrites a call's latents before this one sees them: both calls of a step get the moved ones.
    assert len(seen) == 2 * STEPS
    assert all(torch.equal(first, second) for first, second in zip(seen[::2], seen[1::2], strict=True))


def test_columns_are_those_of_the_second_prompt(tiny_flux: Any, steer: Any) -> None:
    plain = draw(steer(tiny_flux), "a picture", prompt_2=PROMPT)
    assert plain.steering.images[0].relations[0].as_list() == ["dog", "left of", "cat"]
    with pytest.raises(PromptError, match="2 second prompts"):
        draw(steer(tiny_flux), PROMPT, prompt_2=[PROMPT, PROMPT])


def test_ids_are_shared_however_many_samples_there_are(tiny_flux: Any, steer: Any) -> None:
    """32 x 32 pixels are four places; of four samples two are steered, and the ids must stay whole."""
    prompts = [PROMPT, "a dog and a cat", PROMPT, "a dog and a cat"]
    seeds = [torch.Generator().manual_seed(n) for n in range(4)]
    out = draw(steer(tiny_flux), prompts, height=32, width=32, generator=seeds)
    assert [image.passes > 0 for image in out.steering.images] == [True, False, True, False]
    alone = draw(steer(tiny_flux), PROMPT, height=32, width=32, seed=2)
    torch.testing.assert_close(out.images[2:3], alone.images, rtol=1e-3, atol=1e-3)


def test_other_shapes(tiny_flux: Any, steer: Any) -> None:
    out = draw(steer(tiny_flux), height=64, width=96, output_type="np")
    assert out.images.shape == (1, 64, 96, 3)
    assert abs(out.images - draw(tiny_flux, height=64, width=96, output_type="np").images).max() > 0


def test_checkpointing_changes_nothing(tiny_flux: Any, steer: Any) -> None:
    assert torch.equal(draw(steer(tiny_flux)).images, draw(steer(tiny_flux, checkpointing=True)).images)


def test_bf16_moves_in_fp32(tiny_flux: Any, steer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves too small for bf16 add up all the same."""
    seen = []

    def spied(loop: SteeringLoop, step: DenoisingStep, latents: torch.Tensor, state: CallState) -> torch.Tensor:
        seen.append((latents, steer_step(loop, step, latents, state)))
        return seen[-1][1]

    steer_step = SteeringLoop.steer
    monkeypatch.setattr(SteeringLoop, "steer", spied)
    tiny_flux.to(torch.bfloat16)
    out = draw(steer(tiny_flux, window=0.2, passes=8, rate=5e-4, threshold=2.0))
    assert out.images.dtype == torch.bfloat16 and out.images.isfinite().all()
    before, after = seen[0]
    large = before.abs() > 0.5  # where neighbours in bf16 lie 1/256 apart and more
    assert after.dtype == torch.float32 and (after != before)[large].float().mean() > 0.99


def test_bf16_maps_agree_with_those_of_fp32(tiny_flux: Any) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        tiny_flux.to(dtype)
        recording = record(tiny_flux, FAMILY, [PROMPT], 64, 64, {"max_sequence_length": 48})
        latents = torch.randn(recording.call.latents.shape, generator=torch.Generator().manual_seed(0))
        with AttentionCapture(FAMILY.attention_layers(tiny_flux.transformer)).capture(
            columns_to_weights([((1,), (5,))], 48), 4, 4
        ) as maps:
            recording(latents.to(dtype), torch.tensor(0.7))
            found.append(maps().stack(16))
    exact, rough = found
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(("latents", "match"), [((1, 16, 128), "Control"), ((1, 32, 64), "Kontext")])
def test_other_pipelines_are_refused(tiny_flux: Any, latents: tuple[int, ...], match: str) -> None:
    given = {
        "hidden_states": torch.zeros(latents),
        "timestep": torch.ones(1),
        "img_ids": FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32),
        "txt_ids": torch.zeros(48, 3),
    }
    with pytest.raises(UnsupportedError, match=match):
        FAMILY.read(tiny_flux.transformer, (), given)


def test_a_reference_picture_of_another_shape_is_refused(tiny_flux: Any) -> None:
    """Kontext: 2 x 4 places and a reference of 4 x 2 would read as 4 x 4."""
    ids = [FluxPipeline._prepare_latent_image_ids(1, *size, "cpu", torch.float32) for size in ((2, 4), (4, 2))]
    ids[1][:, 0] = 1
    given = {"timestep": torch.ones(1), "img_ids": torch.cat(ids), "txt_ids": torch.zeros(48, 3)}
    with pytest.raises(UnsupportedError, match="Kontext"):
        FAMILY.read(tiny_flux.transformer, (), {"hidden_states": torch.zeros(1, 16, 64), **given})


def test_a_control_lora_widens_the_input_alone(tiny_flux: Any) -> None:
    tiny_flux.transformer.register_to_config(in_channels=128)
    given = {"timestep": torch.ones(1), "txt_ids": torch.zeros(48, 3)}
    given["img_ids"] = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
    with pytest.raises(UnsupportedError, match="Control"):
        FAMILY.read(tiny_flux.transformer, (), {"hidden_states": torch.zeros(1, 16, 128), **given})


def test_an_ip_adapters_attention_is_not_taken_for_the_texts(tiny_flux: Any, steer: Any) -> None:
    plain = draw(steer(tiny_flux)).steering.images[0].probability
    for block in tiny_flux.transformer.transformer_blocks:
        heads = block.attn.heads
        width = block.attn.inner_dim
        processor = FluxIPAdapterAttnProcessor(width, width, num_tokens=(4,), scale=0.0)
        block.attn.set_processor(processor.to(tiny_flux.transformer.dtype))
        assert heads * (width // heads) == width
    images = [torch.zeros(1, 4, width)]
    given = {"ip_hidden_states": images, "ip_adapter_masks": None}
    assert draw(steer(tiny_flux), joint_attention_kwargs=given).steering.images[0].probability == plain


def test_a_relation_that_the_call_cuts_off_is_left_out_but_an_explicit_one_is_refused(
    tiny_flux: Any, steer: Any
) -> None:
    whole = len(tiny_flux.tokenizer_2(PROMPT).input_ids)
    (report,) = draw(steer(tiny_flux), max_sequence_length=whole - 1).steering.images
    assert not report.relations and "'cat' lies beyond" in report.left_out[0].reason
    with pytest.raises(PromptError, match="cat"):
        draw(steer(tiny_flux), max_sequence_length=whole - 1, relations="dog | left of | cat")
    assert draw(steer(tiny_flux), max_sequence_length=whole).steering.images[0].passes
