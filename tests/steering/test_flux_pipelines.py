"""FLUX pipelines beside text-to-image: what the table of docs/pipelines.md says of them."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch

PROMPT = "a dog to the left of a cat"
PLAIN: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.5, "max_sequence_length": 48}


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    settings = PLAIN | {"height": 64, "width": 64, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
    return pipe(prompt, **(settings | more))


def of(kind: str, tiny_flux: Any, **more: Any) -> Any:
    # Some pipelines also take an image encoder that text-to-image ones have no use for.
    pipe = getattr(diffusers, kind)(**{**tiny_flux.components, **more})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("kind", ["FluxImg2ImgPipeline", "FluxInpaintPipeline"])
def test_pictures_as_a_start(tiny_flux: Any, steer: Any, kind: str) -> None:
    pipe = of(kind, tiny_flux)
    given: dict[str, Any] = {"image": torch.rand(1, 3, 64, 64), "strength": 0.75}
    if kind == "FluxInpaintPipeline":
        given["mask_image"] = torch.ones(1, 1, 64, 64)
    stock = draw(pipe, **given).images
    out = draw(steer(pipe), **given)
    assert [step.step for step in out.steering.images[0].steps] == [1, 2]  # the first of four is skipped
    assert abs(out.images - stock).max() > 0


@pytest.mark.parametrize("copies", [1, 2])
def test_controlnet(tiny_flux: Any, steer: Any, copies: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = {**tiny_flux.transformer.config, "num_layers": 1, "num_single_layers": 0}
        known = inspect.signature(diffusers.FluxControlNetModel.__init__).parameters
        control = diffusers.FluxControlNetModel(**{key: config[key] for key in known if key in config})
        for block in control.controlnet_blocks:
            torch.nn.init.normal_(block.weight, std=0.1)
    pipe = of("FluxControlNetPipeline", tiny_flux, controlnet=control)
    given: dict[str, Any] = {"control_image": torch.rand(1, 3, 64, 64), "num_images_per_prompt": copies}
    stock = draw(pipe, **given).images
    out = draw(steer(pipe), **given)
    assert len(out.steering.images) == copies == len(out.images)
    assert all(abs(a - b).max() > 0 for a, b in zip(out.images, stock, strict=True))
    unhinted = draw(steer(tiny_flux)).steering.images[0].probability
    assert out.steering.images[0].probability != unhinted


def test_longer_embeddings_as_redux_makes_them(tiny_flux: Any, steer: Any) -> None:
    text, pooled, _ = tiny_flux.encode_prompt(PROMPT, None, device="cpu", max_sequence_length=48)
    given = {"prompt_embeds": torch.cat([text, text[:, :16]], dim=1), "pooled_prompt_embeds": pooled}
    asked = {"relations": [["dog | left of | cat"]], "columns": [{"dog": [1], "cat": [8]}]}
    assert draw(steer(tiny_flux), None, **given, **asked).steering.images[0].passes == 6
