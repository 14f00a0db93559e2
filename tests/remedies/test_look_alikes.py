"""Pipelines that look like ones that can be steered are refused by ``on()``; what the message advises is done here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel
from told import tells, told

from learn_to_steer import registry
from learn_to_steer.cli import main
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.families.testing import tiny
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a dog to the left of a cat"
UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def parts(pipe: Any, **changes: Any) -> dict[str, Any]:
    return {**pipe.components, **changes}


def rebuilt(denoiser: Any, **changes: Any) -> Any:
    """A denoiser with another config."""
    # diffusers drops what it lists as defaults, changed or not.
    config = {key: value for key, value in denoiser.config.items() if key != "_use_default_values"}
    return type(denoiser).from_config(config | changes)


def refused(pipe: Any, loss: Any, match: str) -> str:
    with pytest.raises(UnsupportedError, match=match) as error:
        Steerer(loss).on(pipe)
    return str(error.value)


def steered(pipe: Any, loss: Any, **arguments: Any) -> None:
    """The remedy: this pipeline is steered."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "output_type": "latent", "height": 64, "width": 64}
    out = Steerer(loss).on(pipe)(PROMPT, **settings, **arguments)
    assert out.steering.images[0].relations and out.images.isfinite().all()
    assert out.steering.images[0].passes + sum(step.checks for step in out.steering.images[0].steps) > 0


@pytest.fixture
def loss_for(random_classifier: Callable[..., Any]) -> Callable[[str], Learned]:
    """``loss_for(family)``: an untrained classifier of the family's tiny pipeline."""
    return lambda name: Learned(random_classifier(tiny(name)).requires_grad_(False))


def test_kolors(loss_for: Any) -> None:
    """Its UNet has all that SDXL's has, and a projection of another text encoder."""
    unet = UNet2DConditionModel(
        **UNET | {"addition_embed_type": "text_time", "addition_time_embed_dim": 8},
        projection_class_embeddings_input_dim=56,
        encoder_hid_dim=12,
        encoder_hid_dim_type="text_proj",
    )
    pipe = diffusers.StableDiffusionXLPipeline(**parts(tiny("sdxl"), unet=unet), add_watermarker=False)
    message = refused(pipe, loss_for("sdxl"), "no model family knows the pipeline StableDiffusionXLPipeline")
    assert "with other inputs or another text than those of sd and sdxl" in message
    assert tells(message, "use a model of one of the families ") and main(["list", "models"]) == 0
    steered(tiny("sdxl"), loss_for("sdxl"))


@pytest.mark.parametrize("missing", ["text_encoder", "text_encoder_2"])
def test_sdxl_without_an_encoder(loss_for: Any, missing: str) -> None:
    whole = tiny("sdxl")
    pipe = diffusers.StableDiffusionXLPipeline(**parts(whole, **{missing: None}), add_watermarker=False)
    message = refused(pipe, loss_for("sdxl"), f"has no {missing}: the refiner, or a pipeline that was loaded without")
    assert tells(message, "; load the base model with both encoders")
    with torch.no_grad():
        text, _, pooled, _ = whole.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
    columns = find(whole).token_indices(whole, PROMPT, [(2, 5), (23, 26)], {})
    given = {"relations": [["dog | left of | cat"]], "columns": [dict(zip(("dog", "cat"), columns, strict=True))]}
    out = Steerer(loss_for("sdxl")).on(whole)(
        None,
        prompt_embeds=text,
        pooled_prompt_embeds=pooled,
        num_inference_steps=2,
        guidance_scale=1.0,
        output_type="latent",
        height=64,
        width=64,
        **given,
    )
    assert out.steering.images[0].relations


def test_deepfloyd_if(loss_for: Any) -> None:
    unet = UNet2DConditionModel(
        **UNET | {"in_channels": 3, "out_channels": 6},
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        encoder_hid_dim=16,
    )
    pipe = diffusers.IFPipeline(
        tokenizer=None,
        text_encoder=None,
        unet=unet,
        scheduler=tiny("sd").scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    assert "learn-to-steer list models" in refused(
        pipe, loss_for("sd"), "no model family knows the pipeline IFPipeline"
    )


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_an_inpainting_model(loss_for: Any, name: str) -> None:
    whole = tiny(name)
    wider = rebuilt(whole.unet, in_channels=9)
    kind = {"sd": diffusers.StableDiffusionInpaintPipeline, "sdxl": diffusers.StableDiffusionXLInpaintPipeline}[name]
    message = refused(
        kind(**parts(whole, unet=wider), **extras(kind)), loss_for(name), "is fed 9 channels but predicts 4"
    )
    assert (
        tells(message, "; use the weights of a text-to-image model, in ") and f"to inpaint, {kind.__name__}" in message
    )
    image, mask = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    steered(kind(**parts(whole), **extras(kind)), loss_for(name), image=image, mask_image=mask, strength=1.0)
    steered(whole, loss_for(name))


def extras(kind: type) -> dict[str, Any]:
    return {"requires_safety_checker": False} if "XL" not in kind.__name__ else {"add_watermarker": False}


@pytest.mark.parametrize("name", ["FluxFillPipeline", "FluxControlPipeline"])
def test_flux_with_a_wider_input(loss_for: Any, name: str) -> None:
    whole = tiny("flux")
    wider = rebuilt(whole.transformer, in_channels=128, out_channels=64)
    kept = {key: part for key, part in whole.components.items() if key not in ("image_encoder", "feature_extractor")}
    message = refused(
        getattr(diffusers, name)(**kept | {"transformer": wider}), loss_for("flux"), "FLUX Fill or Control"
    )
    assert "in FluxPipeline or, to inpaint, FluxInpaintPipeline" in message
    image, mask = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    inpaint = diffusers.FluxInpaintPipeline(**whole.components)
    steered(inpaint, loss_for("flux"), image=image, mask_image=mask, strength=1.0, max_sequence_length=48)


@pytest.mark.parametrize(("name", "argument"), [("sdxl", "prompt_2"), ("sd3", "prompt_2"), ("sd3", "prompt_3")])
def test_a_second_prompt_that_differs(loss_for: Any, name: str, argument: str) -> None:
    pipe = tiny(name)
    with told("; give the same prompt to all encoders"):
        steered(pipe, loss_for(name), **{argument: "a cat to the left of a dog"})
    steered(pipe, loss_for(name), **{argument: PROMPT})
    steered(pipe, loss_for(name))


def test_kontext(loss_for: Any) -> None:
    pipe = diffusers.FluxKontextPipeline(**tiny("flux").components)
    message = refused(pipe, loss_for("flux"), "FluxKontextPipeline has not been tried with steering")
    assert "FluxPipeline.from_pipe(pipe)" in message
    steered(diffusers.FluxPipeline.from_pipe(pipe), loss_for("flux"), max_sequence_length=48)


def test_cogview4_with_a_tokenizer_that_pads_on_the_right(loss_for: Any) -> None:
    pipe = tiny("cogview4")
    pipe.tokenizer.padding_side = "right"
    with told('set pipe.tokenizer.padding_side = "left"'):
        Steerer(loss_for("cogview4")).on(pipe)
    pipe.tokenizer.padding_side = "left"
    steered(pipe, loss_for("cogview4"))


def test_cogview4_with_a_control_image(loss_for: Any) -> None:
    whole = tiny("cogview4")
    pipe = diffusers.CogView4ControlPipeline(**parts(whole, transformer=rebuilt(whole.transformer, in_channels=32)))
    message = refused(pipe, loss_for("cogview4"), "is fed 32 channels but predicts 16")
    assert "use the weights of a text-to-image model, in CogView4Pipeline" in message
    steered(diffusers.CogView4Pipeline(**parts(whole)), loss_for("cogview4"))


def test_hidream(loss_for: Any) -> None:
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[8, 8],
        text_emb_dim=8,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8),
        llama_layers=[0, 0],
    )
    names = ("text_encoder", "tokenizer", *(f"{kind}_{n}" for n in (2, 3, 4) for kind in ("text_encoder", "tokenizer")))
    given: dict[str, Any] = dict.fromkeys(names)
    given |= {"scheduler": tiny("auraflow").scheduler, "vae": tiny("auraflow").vae, "transformer": transformer}
    message = refused(diffusers.HiDreamImagePipeline(**given), loss_for("auraflow"), "whose experts run without grad")
    assert "use a model of one of the families auraflow, " in message
    steered(tiny("auraflow"), loss_for("auraflow"))
    experts = transformer.single_stream_blocks[0].block.ff_i.eval()
    states = torch.randn(1, 4, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad((experts(states) - experts.shared_experts(states)).sum(), states)
    assert gradient.abs().max() < 1e-5, "they have gradients now"


def test_a_video_model(loss_for: Any) -> None:
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1
    )
    pipe = diffusers.WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=tiny("flux").scheduler, transformer=transformer
    )
    message = refused(pipe, loss_for("flux"), r"WanPipeline \(its transformer is a WanTransformer3DModel\)")
    assert all(name in message for name in registry.names("families"))
