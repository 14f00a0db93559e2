"""A classifier of the first layers: forward and backward end there, and the gradient is that of the whole forward."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from typing import Any

import diffusers.utils
import pytest
import torch
from accelerate import cpu_offload
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from peft import LoraConfig

from learn_to_steer.attention import AttentionCapture, Complete, run_until_captured
from learn_to_steer.conditioning import record
from learn_to_steer.errors import MismatchError
from learn_to_steer.families import find
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering import Steerer

PROMPT, OTHER = "a dog to the left of a cat", "a photo of a pizza above a horse"
SETTINGS: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 4, "output_type": "latent"}


def pipeline(request: pytest.FixtureRequest, name: str) -> tuple[Any, Any, dict[str, Any]]:
    pipe = request.getfixturevalue(name)
    more = {"max_sequence_length": 48} if name == "tiny_flux" else {}
    return pipe, getattr(pipe, find(pipe).denoiser), SETTINGS | more


def layers_run(denoiser: Any, family: Any) -> list[str]:
    """A list that receives the names of the attention layers with maps, as they run."""
    names: list[str] = []
    for point in family.attention_layers(denoiser):
        point.module.register_forward_hook(lambda *_, name=point.layer.name: names.append(name))
    return names


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_the_running_order_is_the_one_in_which_layers_run(request: pytest.FixtureRequest, name: str) -> None:
    pipe, denoiser, settings = pipeline(request, name)
    family, names = find(pipe), layers_run(denoiser, find(pipe))
    pipe(PROMPT, **(settings | {"num_inference_steps": 1, "guidance_scale": 1.0}))
    assert names == [layer.name for layer in family.running_order(family.layout(denoiser).layers)]


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_later_layers_do_not_run_in_a_pass(request: pytest.FixtureRequest, steer: Any, name: str) -> None:
    pipe, denoiser, settings = pipeline(request, name)
    steered, names = steer(pipe, depth=2, passes=1, window=0.25, by_step_index=True), layers_run(denoiser, find(pipe))
    report = steered(PROMPT, **(settings | {"guidance_scale": 1.0})).steering.images[0]
    assert report.passes == 1
    order = [layer.name for layer in find(pipe).running_order(find(pipe).layout(denoiser).layers)]
    assert names == order[:2] + order * 4


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_the_images_are_those_of_whole_forwards(
    request: pytest.FixtureRequest, steer: Any, name: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, _, settings = pipeline(request, name)

    def images() -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        return steer(pipe, depth=2, checkpointing=checkpointing)(
            [PROMPT, OTHER], generator=generators, **settings
        ).images

    early = images()
    monkeypatch.setattr(
        "learn_to_steer.steering.loop.run_until_captured", lambda denoiser, arguments: denoiser(**arguments)
    )
    assert torch.equal(early, images())


def test_with_the_residuals_of_a_controlnet(tiny_sd: Any, steer: Any) -> None:
    controlnet = ControlNetModel.from_unet(tiny_sd.unet)
    for zeroed in controlnet.controlnet_down_blocks:
        torch.nn.init.normal_(zeroed.weight, std=0.1)
    pipe = StableDiffusionControlNetPipeline.from_pipe(tiny_sd, controlnet=controlnet)
    steered, names = steer(pipe, depth=2, passes=1, window=0.25, by_step_index=True), layers_run(pipe.unet, find(pipe))
    report = steered(PROMPT, image=torch.rand(1, 3, 64, 64), **(SETTINGS | {"guidance_scale": 1.0})).steering.images[0]
    assert report.passes == 1 and len(names) == 2 + 4 * len(find(pipe).attention_layers(pipe.unet))


def test_the_forward_leaves_nothing_behind(tiny_sd: Any, steer: Any) -> None:
    before = tiny_sd(PROMPT, generator=torch.Generator().manual_seed(0), **SETTINGS).images
    steer(tiny_sd, depth=1)(PROMPT, generator=torch.Generator().manual_seed(0), **SETTINGS)
    after = tiny_sd(PROMPT, generator=torch.Generator().manual_seed(0), **SETTINGS).images
    assert torch.equal(before, after)
    assert torch._C._len_torch_function_stack() == 0


def test_a_pass_of_all_layers_ends_with_the_last(tiny_flux: Any) -> None:
    """``run_until_captured`` outside a capture is the denoiser's call itself."""
    ran: list[bool] = []
    tiny_flux.transformer.norm_out.register_forward_hook(lambda *_: ran.append(True))
    family, denoiser = find(tiny_flux), tiny_flux.transformer
    call = record(tiny_flux, family, [PROMPT], 64, 64).call
    ran.clear()
    arguments = family.write(call) | {"return_dict": False}
    weights = columns_to_weights([[(1,), (3,)]], family.text_length(call))
    capture = AttentionCapture(family.attention_layers(denoiser))
    with torch.no_grad(), capture.capture(weights, *family.latent_size(denoiser, call)) as maps:
        run_until_captured(denoiser, arguments)
        assert len(maps().layers) == len(family.attention_layers(denoiser)) and not ran
    with torch.no_grad():
        run_until_captured(denoiser, arguments)
    assert ran


def test_a_classifier_of_other_layers_is_refused(tiny_sd: Any, random_classifier: Any) -> None:
    classifier = random_classifier(tiny_sd, 2)
    layout = classifier.layout
    other = replace(layout.layers[0], name="down_blocks.7.attn2")
    classifier.config = replace(classifier.config, layout=replace(layout, layers=(other, layout.layers[1])).as_dict())
    with pytest.raises(MismatchError, match="attention maps"):
        Steerer(Learned(classifier)).on(tiny_sd)


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_with_weights_that_are_loaded_layer_by_layer(request: pytest.FixtureRequest, steer: Any, name: str) -> None:
    """As by ``pipe.enable_sequential_cpu_offload()``: weights come before a forward and go after it."""
    pipe, denoiser, settings = pipeline(request, name)

    def images() -> torch.Tensor:
        return steer(pipe, depth=2)(PROMPT, generator=torch.Generator().manual_seed(0), **settings).images

    expected = images()
    cpu_offload(denoiser, execution_device=torch.device("cpu"))
    weights = {key: parameter.device.type for key, parameter in denoiser.named_parameters()}
    assert set(weights.values()) == {"meta"}
    assert torch.equal(images(), expected)
    assert {key: parameter.device.type for key, parameter in denoiser.named_parameters()} == weights


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_lora_layers_keep_their_scale(
    request: pytest.FixtureRequest, steer: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions of diffusers set the scale back at the end of a forward, but not when it ends early."""
    pipe, denoiser, settings = pipeline(request, name)
    denoiser.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    scale = {"joint_attention_kwargs" if name == "tiny_flux" else "cross_attention_kwargs": {"scale": 0.3}}

    def images() -> torch.Tensor:
        return steer(pipe, depth=2)(PROMPT, generator=torch.Generator().manual_seed(0), **settings, **scale).images

    expected = images()
    unscale = diffusers.utils.peft_utils.unscale_lora_layers
    monkeypatch.setattr(
        "diffusers.utils.peft_utils.unscale_lora_layers",
        lambda model, weight: None if sys.exc_info()[0] else unscale(model, weight),
    )
    torch.testing.assert_close(images(), expected)
    scales = [module.scaling["default"] for module in denoiser.modules() if hasattr(module, "scaling")]
    assert scales == [pytest.approx(1.0)] * len(scales) != []


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pass_is_freed_without_the_garbage_collector(tiny_flux: Any, steer: Any, checkpointing: bool) -> None:
    """The traceback of the exception that ends a forward leads to its activations."""
    steered = steer(tiny_flux, depth=2, checkpointing=checkpointing)
    gc.collect()
    gc.disable()
    try:
        steered(PROMPT, **SETTINGS, max_sequence_length=48)
        assert not [one for one in gc.get_objects() if isinstance(one, Complete)]
    finally:
        gc.enable()


def test_an_error_in_the_last_layer_is_not_lost(tiny_sd: Any, steer: Any) -> None:
    def fail(*_: Any) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("out of memory")

    steered, family = steer(tiny_sd, depth=2), find(tiny_sd)
    last = family.running_order(family.layout(tiny_sd.unet).layers)[1].name
    tiny_sd.unet.get_submodule(last).to_out[0].register_forward_hook(fail)  # the maps are there by then
    with pytest.raises(RuntimeError, match="out of memory"):
        steered(PROMPT, **SETTINGS)
