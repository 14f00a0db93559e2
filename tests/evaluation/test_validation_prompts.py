"""Validation prompts are steered with the classifier in a folder, and not twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from learn_to_steer.classifier import save
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.evaluation import Scorer, evaluate_model
from learn_to_steer.evaluation.validation_prompts import steering_trial
from learn_to_steer.steering import SteeredPipeline


def test_a_trial_steers_with_its_classifier_and_goes_on(
    saved_sd: Path,
    tiny_sd: Any,
    random_classifier: Callable[..., Any],
    left_dog: Scorer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, steered = list[str](), list[int]()
    monkeypatch.setattr(evaluate_model, "load_scorer", lambda name, device: asked.append(name) or left_dog)
    call = SteeredPipeline.__call__

    def counted(self: Any, prompt: Any, *arguments: Any, **more: Any) -> Any:
        steered.append(len(prompt))
        return call(self, prompt, *arguments, **{**more, "num_inference_steps": 2})

    monkeypatch.setattr(SteeredPipeline, "__call__", counted)
    classifier = random_classifier(tiny_sd)
    save(classifier, tmp_path)
    trial = steering_trial({"model": str(saved_sd), "side": 64}, 2, "emoji")
    right = trial(tmp_path)
    assert set(asked) == {"emoji"} and sum(steered) == len(right) == 2
    assert {key[1] for key in right} == {0}
    assert trial(tmp_path) == right and sum(steered) == 2
    # Another detector sees other things.
    assert len(steering_trial({"model": str(saved_sd), "side": 64}, 2, "owlv2")(tmp_path)) == 2 and sum(steered) == 4
    # Other weights are other images, in another folder.
    with torch.no_grad():
        next(classifier.parameters()).add_(1)
    save(classifier, tmp_path)
    assert len(trial(tmp_path)) == 2 and sum(steered) == 6


def test_what_is_known_before_the_training(saved_sd: Path) -> None:
    with pytest.raises(DataError, match="collect again"):
        steering_trial({}, 3)
    with pytest.raises(DataError, match="name a --detector"):
        steering_trial({"model": str(saved_sd)}, 3)
    with pytest.raises(UnknownNameError, match="emojo"):
        steering_trial({"model": str(saved_sd)}, 3, "emojo")
