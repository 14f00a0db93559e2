"""Modular pipelines of diffusers, steered by a block (``learn_to_steer.modular``)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ModularPipeline
from tiny_modular import BLOCKS, NO_RELATION, PROMPT, draw, modular, steerer

from learn_to_steer import classifier
from learn_to_steer.errors import PromptError
from learn_to_steer.families import find
from learn_to_steer.families.testing import tiny
from learn_to_steer.modular import SteerStep
from learn_to_steer.steering.inputs import read_targets

# Of diffusers' Euler scheduler with new versions of NumPy; of saving, in diffusers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
REPOSITORY = Path(__file__).resolve().parents[2] / "examples" / "modular_repository"


@pytest.mark.parametrize("name", BLOCKS)
def test_steered_with_relations_and_the_same_to_the_bit_without(
    name: str, random_classifier: Callable[..., Any]
) -> None:
    pipe = modular(name)
    steered = SteerStep.into(pipe, steerer(name, random_classifier))
    out, stock = draw(steered), draw(pipe)
    assert out.steering.images[0].passes > 0
    assert (out.images - stock.images).abs().max() > 1e-3
    family = find(tiny(name))
    regular = read_targets(tiny(name), family, steerer(name, random_classifier).loss, PROMPT, None, None, {})
    assert [one.columns for one in out.steering_targets] == [one.columns for one in regular]
    without = draw(steered, NO_RELATION)
    assert torch.equal(without.images, draw(pipe, NO_RELATION).images)
    assert without.steering.images[0].relations == [] and without.steering.images[0].passes == 0
    assert torch.equal(draw(pipe).images, stock.images)  # the given pipeline is as it was


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_the_same_images_as_of_the_ordinary_pipeline(name: str, random_classifier: Callable[..., Any]) -> None:
    """SD3's guider calls the transformer twice; without guidance both pipelines call it alike."""
    ordinary, pipe, own = tiny(name), modular(name), steerer(name, random_classifier)
    more = {"guidance_scale": 3.5} if name == "flux" else {"guidance_scale": 1.0}
    if name == "sd3":
        pipe.update_components(guider=diffusers.ClassifierFreeGuidance(enabled=False))
    mine = draw(SteerStep.into(pipe, own), **(more if name == "flux" else {}))
    assert torch.equal(mine.images, draw(own.on(ordinary), **more).images)


def test_prompts_in_a_list_are_read_before_the_encoder_rewrites_it(random_classifier: Callable[..., Any]) -> None:
    """Z-Image's encoder puts its chat in place of the prompts in the list."""
    steered = SteerStep.into(modular("z-image"), steerer("z-image", random_classifier))
    out = draw(steered, [PROMPT, NO_RELATION], num_images_per_prompt=2)
    assert [image.prompt for image in out.steering.images] == [PROMPT, PROMPT, NO_RELATION, NO_RELATION]
    assert [image.passes > 0 for image in out.steering.images] == [True, True, False, False]


def test_relations_columns_and_strict_are_inputs(random_classifier: Callable[..., Any]) -> None:
    steered = SteerStep.into(modular("sdxl"), steerer("sdxl", random_classifier))
    out = draw(steered, NO_RELATION, relations="dog | above | cat", output=["images", "steering"])
    assert set(out) == {"images", "steering"}
    assert [one.predicate for one in out["steering"].images[0].relations] == ["above"]
    with pytest.raises(PromptError, match="names no relation"):
        draw(steered, NO_RELATION, strict=True)


def test_a_class_of_blocks_is_not_changed(random_classifier: Callable[..., Any]) -> None:
    """Instances of ``FluxAutoBlocks`` share their inner blocks."""
    SteerStep.into(diffusers.FluxAutoBlocks(), steerer("flux", random_classifier))
    fresh = diffusers.FluxAutoBlocks()
    assert "relations" not in fresh.sub_blocks
    assert not isinstance(fresh.sub_blocks["denoise"].sub_blocks["denoise"], SteerStep)


def test_a_workflow_stays_steered(random_classifier: Callable[..., Any]) -> None:
    blocks = SteerStep.into(diffusers.FluxAutoBlocks(), steerer("flux", random_classifier))
    out = draw(modular("flux", blocks.get_workflow("text2image")))
    assert out.steering.images[0].passes > 0


def test_an_image_is_the_start_of_fewer_steps(random_classifier: Callable[..., Any]) -> None:
    """A low strength leaves no step in the steered window, as with ordinary img2img pipelines."""
    steered = SteerStep.into(modular("sdxl"), steerer("sdxl", random_classifier))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    high = draw(steered, image=image, strength=0.9, num_inference_steps=4)
    assert high.steering.images[0].passes > 0 and high.steering.images[0].steps[0].step == 1
    low = draw(steered, image=image, strength=0.3, num_inference_steps=4)
    assert low.steering.images[0].passes == 0 and "steered window" in low.steering.images[0].note


@pytest.mark.parametrize("kind", ["AdaptiveProjectedGuidance", "ClassifierFreeZeroStarGuidance"])
def test_other_guiders_that_combine_predictions(kind: str, random_classifier: Callable[..., Any]) -> None:
    pipe = modular("sd3")
    pipe.update_components(guider=getattr(diffusers, kind)(guidance_scale=4.0))
    out = draw(SteerStep.into(pipe, steerer("sd3", random_classifier)))
    assert out.steering.images[0].passes > 0 and out.images.isfinite().all()


def test_a_hub_repository_loads_it(tmp_path: Path, random_classifier: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    classifier.save(random_classifier(tiny("flux")), tmp_path / "classifier")
    folder = tmp_path / "repository"
    shutil.copytree(REPOSITORY, folder)
    pipe = modular("flux")
    pipe.save_pretrained(str(folder), overwrite_modular_index=True)
    index = json.loads((folder / "modular_model_index.json").read_text())
    assert set(index) == set(json.loads((REPOSITORY / "modular_model_index.json").read_text()))
    loaded = ModularPipeline.from_pretrained(
        str(folder), trust_remote_code=True, classifier=str(tmp_path / "classifier")
    )
    loaded.load_components()
    assert type(loaded.blocks).__name__ == "SteeredFluxBlocks"
    out = draw(loaded)
    assert out.steering.images[0].relations and out.images.isfinite().all()
    pipe.update_components(**loaded.components)  # loaded tokenizers are of other classes
    assert torch.equal(draw(loaded, NO_RELATION).images, draw(pipe, NO_RELATION).images)
