"""A classifier is found by any of its names, in Python and on the command line, and tells which model it is for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from learn_to_steer import Steerer, load_pipeline
from learn_to_steer.classifier import load, save
from learn_to_steer.configs import ModelConfig
from learn_to_steer.digests import sampled_weights
from learn_to_steer.evaluation import open_model
from learn_to_steer.losses.learned import Learned

PACKAGED = "package:learn_to_steer_emoji/data/flux-emoji-schnell-classifier"


def warnings_of(caplog: Any, pipe: Any, classifier: Any) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Steerer(Learned(classifier)).on(pipe)
    return str(caplog.text)


def test_other_weights_of_the_same_layout(tiny_sd: Any, random_classifier: Callable[..., Any], caplog: Any) -> None:
    known = {"model": "owner/base", "weights": sampled_weights(tiny_sd.unet)}
    classifier = random_classifier(tiny_sd, trained_on=known)
    assert warnings_of(caplog, tiny_sd, classifier) == ""
    half = random_classifier(tiny_sd, trained_on=known | {"weights": sampled_weights(tiny_sd.unet, torch.bfloat16)})
    assert warnings_of(caplog, tiny_sd, half) == ""
    with torch.no_grad():
        tiny_sd.unet.conv_in.bias += 0.5
    assert "trained on the maps of owner/base" in warnings_of(caplog, tiny_sd, classifier)
    assert warnings_of(caplog, tiny_sd, random_classifier(tiny_sd)) == ""  # nothing is known of it
    tiny_sd.unet.peft_config = {"style": None}
    assert warnings_of(caplog, tiny_sd, classifier) == ""  # adapters belong to the same model


def test_what_it_was_trained_on_is_in_the_file(
    tiny_sd: Any, random_classifier: Callable[..., Any], tmp_path: Any
) -> None:
    known = {"model": "owner/base", "weights": "0123456789ab"}
    save(random_classifier(tiny_sd, trained_on=known), tmp_path)
    assert load(tmp_path).config.trained_on == known


@pytest.mark.parametrize("source", ["flux:emoji-schnell", PACKAGED])
def test_a_packaged_classifier_of_another_model(source: str, caplog: Any) -> None:
    pipe = load_pipeline("flux:emoji")
    with caplog.at_level(logging.WARNING):
        Steerer.from_pretrained(source).on(pipe)
        open_model(ModelConfig(model="flux:emoji", classifier=source))
    assert caplog.text.count("trained on the maps of flux:emoji-schnell, not on those of flux:emoji") == 2
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Steerer.from_pretrained("flux:emoji").on(pipe)
    assert caplog.text == ""


def test_python_and_the_command_line_stop_alike() -> None:
    pipe = load_pipeline("sd:emoji")
    folder = PACKAGED.replace("flux-emoji-schnell", "sd-emoji")
    for source in ("sd:emoji", folder):
        command_line = open_model(ModelConfig(model="sd:emoji", classifier=source)).steered
        assert command_line is not None
        python = Steerer.from_pretrained(source).on(pipe).config
        assert python.threshold == 0.8
        assert python == replace(command_line.config, checkpointing=python.checkpointing)
