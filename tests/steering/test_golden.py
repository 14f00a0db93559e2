"""The authors' numbers, reproduced: maps, logits, losses, gradient and updates on a tiny random UNet."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.classifier import read_official
from learn_to_steer.families import Call
from learn_to_steer.families.flux import FAMILY as FLUX
from learn_to_steer.families.sd import FAMILY as SD
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import Relation
from learn_to_steer.steering.config import profile
from learn_to_steer.steering.inputs import Target
from learn_to_steer.steering.loop import SteeringLoop
from learn_to_steer.steering.report import ImageReport, StepReport
from learn_to_steer.steering.state import CallState, DenoisingStep, ImageState

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def _close(mine: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.fixture(scope="module")
def sd():
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "sd_unet").eval()
    return unet, load_file(GOLDEN / "sd_steering.safetensors"), json.loads((GOLDEN / "sd_steering.json").read_text())


@pytest.mark.parametrize("method", ["auto", "explicit", "indicator", "logits"])
def test_sd_maps_and_logits(sd, method):
    unet, tensors, facts = sd
    weights = columns_to_weights([[facts["subject_tokens"], facts["object_tokens"]]], 77)
    capture = AttentionCapture(SD.attention_layers(unet), SD.attention(unet), method=method)
    with torch.no_grad(), capture.capture(weights, 32, 32) as maps:
        prediction = unet(tensors["latents"], tensors["timestep"], tensors["text"]).sample
        stacked = maps().stack(16)
    _close(prediction, tensors["noise_pred"])
    _close(stacked[0, 0], tensors["subject_maps"])
    _close(stacked[0, 1], tensors["object_maps"])
    classifier = read_official(GOLDEN / "sd_classifier.pth")
    _close(classifier(stacked, torch.tensor([facts["classifier_timestep"]])), tensors["logits"])


def _state():
    return CallState([ImageReport("", [])], [0])


def _evaluate(loop, step, latents):
    """One evaluation of the only image, before it has moved."""
    nowhere = torch.zeros_like(latents[0])
    image = ImageState(0, latents[0], 0.0, 1.0, 0, 0.0, StepReport(0, 0.0), (latents[0], nowhere))
    return loop.evaluate(step, [image], 0, _state())


def _sd_loop(unet, facts, updates):
    loss_function = Learned(read_official(GOLDEN / "sd_classifier.pth", SD.layout(unet)))
    config = profile("official", step_size=facts["step_size"]).changed(passes=updates)
    relation = Relation("dog", "left of", "cat")
    columns = (tuple(facts["subject_tokens"]), tuple(facts["object_tokens"]))
    target = Target("", (relation,), (ObjectPair(0, "left of", 1),), columns)
    capture = AttentionCapture(SD.attention_layers(unet), SD.attention(unet), loss_function.spec)
    return SteeringLoop(SD, unet, loss_function, capture, config, [target])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sd_official_loop(sd, checkpointing):
    unet, tensors, facts = sd
    unet.requires_grad_(False)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    call = Call(tensors["latents"], tensors["timestep"][0], {"encoder_hidden_states": tensors["text"]})
    info = StepInfo(noise_level=0.9, step=facts["step_index"])
    step, state = DenoisingStep(call, info), _state()
    after = _sd_loop(unet, facts, facts["updates"]).steer(step, tensors["latents"], state)
    _close(after, tensors["latents_after"])
    assert state.reports[0].passes == state.iterations[0] == facts["updates"]
    once = _sd_loop(unet, facts, 1)
    moved = once.steer(step, tensors["latents"], _state())
    _close((tensors["latents"] - moved) / facts["step_size"], tensors["grad"], 1e-3)  # the difference cancels digits
    evaluation = _evaluate(once, step, tensors["latents"])
    _close(evaluation.gradient, tensors["grad"])
    _close(evaluation.output.loss[0], tensors["losses"][:1])
    unet.disable_gradient_checkpointing()


@pytest.fixture(scope="module")
def flux():
    transformer = FluxTransformer2DModel.from_pretrained(GOLDEN / "flux_transformer").eval().requires_grad_(False)
    tensors = load_file(GOLDEN / "flux_steering.safetensors")
    facts = json.loads((GOLDEN / "flux_steering.json").read_text())
    given = {
        "hidden_states": tensors["latents"],
        "timestep": FLUX.model_timestep(None, tensors["timestep"]),
        "encoder_hidden_states": tensors["text"],
        "pooled_projections": tensors["pooled"],
        "guidance": tensors["guidance"],
        "img_ids": tensors["img_ids"],
        "txt_ids": tensors["txt_ids"],
    }
    return transformer, tensors, facts, FLUX.read(transformer, (), given)


@pytest.mark.parametrize("method", ["auto", "explicit", "indicator", "logits"])
def test_flux_maps(flux, method):
    """Joint attention, text first, double blocks then single blocks; the softmax runs over the text alone."""
    transformer, tensors, facts, call = flux
    weights = columns_to_weights([[facts["subject_tokens"], facts["object_tokens"]]], FLUX.text_length(call))
    with AttentionCapture(FLUX.attention_layers(transformer), method=method).capture(
        weights, *FLUX.latent_size(transformer, call)
    ) as maps:
        prediction = transformer(**FLUX.write(call)).sample
        stacked = maps().stack(16, renormalise=False)
    _close(prediction, tensors["noise_pred"])
    _close(stacked[0, 0], tensors["subject_maps"])
    _close(stacked[0, 1], tensors["object_maps"])
    classifier = read_official(GOLDEN / "flux_classifier.pth")
    _close(classifier(stacked, torch.tensor([facts["classifier_timestep"]])), tensors["logits"])


def test_flux_official_loop(flux):
    transformer, tensors, facts, call = flux
    layout = replace(FLUX.layout(transformer), renormalise=False)
    loss_function = Learned(read_official(GOLDEN / "flux_classifier.pth", layout))
    loss_function.check(FLUX.layout(transformer))
    config = profile("official", step_size=facts["step_size"]).changed(passes=facts["updates"], loss_targets=(7e-5,))
    columns = (tuple(facts["subject_tokens"]), tuple(facts["object_tokens"]))
    target = Target("", (Relation("dog", "above", "cat"),), (ObjectPair(0, "above", 1),), columns)
    capture = AttentionCapture(FLUX.attention_layers(transformer), FLUX.attention(transformer), loss_function.spec)
    loop = SteeringLoop(FLUX, transformer, loss_function, capture, config, [target])
    step = DenoisingStep(call, StepInfo(noise_level=0.9, step=facts["step_index"]))
    evaluation = _evaluate(loop, step, tensors["latents"])
    _close(evaluation.output.loss[0], tensors["losses"][:1])
    _close(evaluation.gradient, tensors["grad"])
    _close(loop.steer(step, tensors["latents"], _state()), tensors["latents_after"])
