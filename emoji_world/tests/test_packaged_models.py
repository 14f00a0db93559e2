"""The embedded models: what is packed draws what it is asked for."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from transformers import T5EncoderModel

from learn_to_steer.evaluation import ModelConfig, open_model
from learn_to_steer.loading import load_pipeline
from learn_to_steer.losses.base import NEVER
from learn_to_steer.model_names import package_folder
from learn_to_steer_emoji.detector import load

OBJECTS = ("dog", "teddy bear", "turtle", "banana")


@pytest.mark.parametrize("model", ["sd:emoji", "flux:emoji", "flux:emoji-schnell"])
def test_single_objects_are_found_in_its_pictures(model):
    pipe = load_pipeline(model)
    pictures = pipe(
        [f"a {name}" for name in OBJECTS],
        generator=[torch.Generator().manual_seed(0) for _ in OBJECTS],
        **pipe.steering_defaults | {"num_inference_steps": min(12, pipe.steering_defaults["num_inference_steps"])},
    ).images
    found = [{detection.name for detection in boxes} for boxes in load().detect(pictures)]
    assert sum(name in names for name, names in zip(OBJECTS, found, strict=True)) >= 3


def test_plain_diffusers_draws_from_the_folder():
    pipe = StableDiffusionPipeline.from_pretrained(package_folder("package:learn_to_steer_emoji/data/sd-emoji"))
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a dog", num_inference_steps=1, height=128, width=128).images[0].size == (128, 128)


def test_plain_transformers_loads_an_encoder_that_fits_the_transformer():
    assert (
        T5EncoderModel.from_pretrained(
            package_folder("package:learn_to_steer_emoji/data/flux-emoji") / "text_encoder_2"
        ).dtype
        == torch.float32
    )


def config(model="flux:emoji-schnell", **settings):
    return open_model(ModelConfig(model=model, **settings)).steered.config


def test_a_stop_chosen_for_a_model_is_the_default_profiles_alone():
    default, equal, official = (config("sd:emoji", profile=name) for name in ("default", "equal", "official"))
    assert default.threshold == 0.8 and equal.threshold == NEVER
    assert official.loss_targets and official.threshold != 0.8
    assert config("sd:emoji", settings={"threshold": 0.9}).threshold == 0.9
    assert config("sd:emoji", objective="for-spatial").threshold == NEVER


def test_a_published_stop_looks_at_the_least_relation():
    assert config("sd:emoji").stop == "all" and config("sd:emoji", objective="layout-guidance").stop == "worst"


def test_settings_chosen_for_a_model_are_not_a_baselines():
    """What was tuned for our loop on a model leaves published schedules alone; ``equal`` has no stop."""
    equal, published = config(profile="equal", objective="for-spatial"), config(objective="for-spatial")
    assert config().iterations == equal.iterations == 6 and published.iterations == 1
    assert equal.threshold == NEVER and config().threshold < 1
    assert {config().window, equal.window, published.window} == {0.2}  # the initial noise alone, whatever the loss
    assert config(settings={"passes": 3}).iterations == 3


@pytest.mark.parametrize("model", ["sd-emoji", "flux-emoji"])
def test_text_encoders_load_in_every_supported_transformers(model):
    """transformers 5 finds weights by either name, 4 only by the one with the prefix, and says nothing."""
    with safe_open(
        package_folder(f"package:learn_to_steer_emoji/data/{model}") / "text_encoder" / "model.safetensors",
        framework="pt",
    ) as file:
        assert all(key.startswith("text_model.") for key in file.keys())  # noqa: SIM118
