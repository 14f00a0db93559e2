"""What SDXL and SD3 have of their own: second prompts, ControlNet, few steps, and a text with or without T5."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from tiny_draws import CAT, DOG, PROMPT, draw, is_steered

from learn_to_steer.errors import PromptError
from learn_to_steer.families import find, resolve
from learn_to_steer.families.testing import tiny
from learn_to_steer.loading import skeleton

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    ("model", "layers", "channels"),
    [
        ("sdxl:base", 70, 1300),
        ("sdxl:turbo", 70, 1300),
        ("sd3:medium", 24, 576),
        ("sd3.5:medium", 24, 576),
        ("sd3.5:large", 38, 1444),
        ("sd3.5:large-turbo", 38, 1444),
    ],
)
def test_layouts_of_the_released_models(model: str, layers: int, channels: int) -> None:
    family, empty = skeleton(model)
    layout = family.layout(empty)
    assert (family.name, len(layout.layers), layout.channels) == (resolve(model).family, layers, channels)


@pytest.mark.parametrize("kind", ["StableDiffusionXLImg2ImgPipeline", "StableDiffusion3Img2ImgPipeline"])
def test_img2img(steer: Any, kind: str) -> None:
    parts = tiny("sdxl" if "XL" in kind else "sd3").components
    is_steered(getattr(diffusers, kind)(**parts), steer, image=torch.rand(1, 3, 64, 64), strength=0.9)


@pytest.mark.parametrize("kind", ["StableDiffusionXLInpaintPipeline", "StableDiffusion3InpaintPipeline"])
def test_inpainting_on_the_latents_alone(steer: Any, kind: str) -> None:
    parts = tiny("sdxl" if "XL" in kind else "sd3").components
    given = {"image": torch.rand(1, 3, 64, 64), "mask_image": torch.ones(1, 1, 64, 64), "strength": 1.0}
    is_steered(getattr(diffusers, kind)(**parts), steer, height=64, width=64, **given)


def test_sdxl_with_a_controlnet(steer: Any) -> None:
    """With guidance: residuals and sizes have a row for each half."""
    whole = tiny("sdxl")
    control = diffusers.ControlNetModel.from_unet(whole.unet).eval()
    with torch.no_grad():
        for layer in control.controlnet_down_blocks:
            layer.weight.normal_(0, 0.5)
    pipe = diffusers.StableDiffusionXLControlNetPipeline(**whole.components, controlnet=control, add_watermarker=False)
    is_steered(pipe, steer, image=torch.rand(1, 3, 64, 64))


def test_sd3_with_a_controlnet(steer: Any) -> None:
    whole = tiny("sd3")
    control = diffusers.SD3ControlNetModel.from_transformer(
        whole.transformer, num_layers=1, num_extra_conditioning_channels=0
    ).eval()
    with torch.no_grad():
        for layer in control.controlnet_blocks:
            layer.weight.normal_(0, 0.5)
    pipe = diffusers.StableDiffusion3ControlNetPipeline(**whole.components, controlnet=control)
    is_steered(pipe, steer, control_image=torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    "scheduler", ["EulerAncestralDiscreteScheduler", "LCMScheduler", "DPMSolverMultistepScheduler"]
)
def test_few_steps_of_sdxl(steer: Any, scheduler: str) -> None:
    """As Turbo and Lightning models are sampled: without guidance, from the very end of the schedule."""
    pipe = tiny("sdxl")
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, timestep_spacing="trailing")
    steps = {"num_inference_steps": 1} if scheduler.startswith("Euler") else {"num_inference_steps": 4}
    mine, stock = draw(steer(pipe, window=0.2), guidance_scale=0.0, **steps), draw(pipe, guidance_scale=0.0, **steps)
    assert [step.step for step in mine.steering.images[0].steps] == [0]
    assert (mine.images - stock.images).abs().max() > 1e-3


def test_a_unet_with_guidance_as_an_input_is_a_few_step_model() -> None:
    pipe = tiny("sdxl")
    assert find(pipe).default_variant(pipe, "some/folder").steps == 50
    pipe.unet.register_to_config(time_cond_proj_dim=8)
    variant = find(pipe).default_variant(pipe, "some/folder")
    assert (variant.steps, variant.steering) == (4, {"window": 0.2})


def test_a_word_of_sd3_stands_in_both_parts_of_the_text() -> None:
    pipe = tiny("sd3")
    family = find(pipe)
    clip, t5 = pipe.tokenizer(PROMPT).input_ids, pipe.tokenizer_3(PROMPT).input_ids
    for word, columns in zip(("dog", "cat"), family.token_indices(pipe, PROMPT, [DOG, CAT], {}), strict=True):
        first, second = columns
        assert pipe.tokenizer.decode(clip[first]).strip() == pipe.tokenizer_3.decode(t5[second - 77]).strip() == word


def test_a_word_that_clip_cuts_off_is_read_by_t5() -> None:
    pipe = tiny("sd3")
    family = find(pipe)
    prompt = "a dog to the left of a" + " large" * 80 + " cat"
    (columns,) = family.token_indices(pipe, prompt, [(len(prompt) - 3, len(prompt))], {})
    assert len(columns) == 1 and columns[0] >= 77
    with pytest.raises(PromptError, match="'cat' lies beyond the 64 tokens"):
        family.token_indices(pipe, prompt, [(len(prompt) - 3, len(prompt))], {"max_sequence_length": 64})


def test_sd3_without_t5(steer: Any) -> None:
    parts = tiny("sd3").components | {"text_encoder_3": None, "tokenizer_3": None}
    pipe = diffusers.StableDiffusion3Pipeline(**parts)
    is_steered(pipe, steer)
    family, prompt = find(pipe), "a dog to the left of a" + " large" * 80 + " cat"
    assert all(len(columns) == 1 for columns in family.token_indices(pipe, PROMPT, [DOG, CAT], {}))
    with pytest.raises(PromptError, match="'cat' lies beyond the 77 tokens"):
        family.token_indices(pipe, prompt, [(len(prompt) - 3, len(prompt))], {})


def test_the_fp16_vae_of_sdxl_is_run_in_fp32() -> None:
    pipe = tiny("sdxl").to(torch.float16)
    seen = []
    pipe.vae.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    latents = find(pipe).encode(pipe, torch.rand(1, 3, 64, 64))
    assert seen == [torch.float32] and pipe.vae.dtype == torch.float16 and latents.isfinite().all()


@pytest.mark.parametrize("name", ["sd3:medium", "sd3.5:medium", "sd3.5:large"])
def test_a_folder_is_sampled_as_the_released_model_of_its_size(name: str) -> None:
    """By its config; a turbo model has that of the model it was made from."""
    family, empty = skeleton(name)
    folder = SimpleNamespace(transformer=empty, vae_scale_factor=8)
    usual, known = family.default_variant(folder, "some/folder"), resolve(name)
    assert (usual.name, usual.steps, usual.guidance) == ("some/folder", known.steps, known.guidance)


# Variant -> the changes to the scheduler of the tiny pipeline that make it the variant's own.
FEW_STEPS: dict[str, dict[str, Any]] = {
    "sdxl:turbo": {"timestep_spacing": "trailing"},
    "sd3.5:large-turbo": {"shift": 3.0},
    "flux:schnell": {"shift": 1.0},
    "flux2:klein": {"shift": 3.0, "use_dynamic_shifting": True},
    "z-image:turbo": {"shift": 3.0},
}


SHIFTED = ("sd3.5:large-turbo", "flux2:klein")


@pytest.mark.parametrize(
    "name", [name if name in SHIFTED else pytest.param(name, marks=pytest.mark.slow) for name in FEW_STEPS]
)
def test_of_a_few_steps_the_first_is_steered(name: str, steer: Any) -> None:
    """Whatever the schedule: shifted ones have several steps in the first fifth of the noise."""
    variant = resolve(name)
    pipe = tiny(name if name == "flux2:klein" else variant.family)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **FEW_STEPS[name])
    steered = steer(pipe, depth=1, **variant.steering)
    settings = {"num_inference_steps": max(variant.steps, 4), "height": 64, "width": 64, "output_type": "latent"}
    out = steered("a dog to the left of a cat", guidance_scale=variant.guidance, **settings)
    assert [step.step for step in out.steering.images[0].steps] == [0]
