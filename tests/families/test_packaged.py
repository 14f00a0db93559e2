"""The embedded models: what is packed draws what it is asked for."""

import pytest
import torch

from learn_to_steer.detectors import emoji
from learn_to_steer.families._load import load_pipeline

OBJECTS = ("dog", "teddy bear", "turtle", "banana")


@pytest.mark.parametrize("model", ["sd:emoji", "flux:emoji"])
def test_single_objects_are_found_in_its_pictures(model):
    pipe, variant = load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe(
        [f"a {name}" for name in OBJECTS],
        num_inference_steps=12,
        guidance_scale=variant.guidance,
        height=variant.side,
        width=variant.side,
        generator=[torch.Generator().manual_seed(0) for _ in OBJECTS],
        **variant.arguments,
    ).images
    found = [{detection.name for detection in boxes} for boxes in emoji.load().detect(pictures)]
    assert sum(name in names for name, names in zip(OBJECTS, found, strict=True)) >= 3
