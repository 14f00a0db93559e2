"""What ``SteerStep`` and ``on()`` refuse of modular pipelines; what the message advises is done here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
from tiny_modular import PROMPT, draw, modular, steerer
from told import told

from learn_to_steer.families.testing import tiny
from learn_to_steer.modular import SteerStep

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def is_steered(pipe: Any) -> None:
    assert draw(pipe, num_inference_steps=2).steering.images[0].passes > 0


def test_a_modular_pipeline_is_steered_by_its_block(random_classifier: Callable[..., Any]) -> None:
    own, pipe = steerer("flux", random_classifier), modular("flux")
    with told("steered = SteerStep.into(pipe, steerer), from learn_to_steer.modular"):
        own.on(pipe)
    is_steered(SteerStep.into(pipe, own))


def test_an_ordinary_pipeline_is_not(random_classifier: Callable[..., Any]) -> None:
    own, pipe = steerer("flux", random_classifier), tiny("flux")
    with told("other pipelines are steered by steerer.on(pipe)"):
        SteerStep.into(pipe, own)
    assert own.on(pipe)(PROMPT, height=64, width=64, num_inference_steps=2).steering.images[0].passes > 0


@pytest.mark.parametrize("kind", ["FluxKontextAutoBlocks", "QwenImageEditAutoBlocks", "WanBlocks"])
def test_other_blocks_are_refused(kind: str, random_classifier: Callable[..., Any]) -> None:
    own = steerer("flux", random_classifier)
    with told("use one of the blocks"):
        SteerStep.into(getattr(diffusers, kind)(), own)
    is_steered(modular("flux", SteerStep.into(diffusers.FluxAutoBlocks(), own)))


def test_blocks_are_steered_once_and_whole(random_classifier: Callable[..., Any]) -> None:
    own = steerer("flux", random_classifier)
    blocks = SteerStep.into(diffusers.FluxAutoBlocks(), own)
    with told("take those of the model: type(blocks)()"):
        SteerStep.into(blocks, own)
    part = diffusers.FluxAutoBlocks().sub_blocks["denoise"]
    with told("steer all blocks of the pipeline"):
        SteerStep.into(part, own)
    headless = SteerStep.into(type(blocks)(), own)
    headless.sub_blocks.pop("relations")
    with told("make the pipeline of all blocks that SteerStep.into returned"):
        draw(modular("flux", headless))
    is_steered(modular("flux", SteerStep.into(type(blocks)(), own)))


def test_components_must_be_loaded(random_classifier: Callable[..., Any]) -> None:
    pipe = SteerStep.into(diffusers.FluxAutoBlocks(), steerer("flux", random_classifier)).init_pipeline()
    with told("call the pipeline's load_components()"):
        draw(pipe)
    own = tiny("flux").components
    pipe.update_components(**{name: own[name] for name in pipe.components if name in own})
    is_steered(pipe)


def test_guiders_that_change_the_denoiser(random_classifier: Callable[..., Any]) -> None:
    pipe = modular("sd3")
    pipe.update_components(guider=diffusers.SkipLayerGuidance(skip_layer_guidance_layers=[0]))
    steered = SteerStep.into(pipe, steerer("sd3", random_classifier))
    with told("use update_components(guider=ClassifierFreeGuidance())"):
        draw(steered)
    steered.update_components(guider=diffusers.ClassifierFreeGuidance())
    is_steered(steered)
