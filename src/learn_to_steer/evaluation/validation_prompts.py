"""Steer validation prompts with a classifier that was just trained, to see whether it steers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from learn_to_steer import registry, storage
from learn_to_steer.classifier.file import FILE as CLASSIFIER
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.evaluate_model import evaluate
from learn_to_steer.evaluation.scoring import default_detector
from learn_to_steer.result_rows import read_rows

BENCHMARK = "geneval-position-val"


def steering_trial(
    settings: Mapping[str, Any], prompts: int, detector: str | None = None
) -> Callable[[Path], dict[tuple[int, int], bool]]:
    """Return a function that steers validation prompts, one image each, with the classifier in a folder.

    The function returns whether each image is right, by the numbers of prompt and image. It writes an evaluation into
    the folder of the classifier, under a name that depends on weights, number and detector, and resumes one that was
    stopped.

    Args:
        settings: The settings of the collection that the classifier was trained on, which name its model.
        prompts: The number of prompts.
        detector: The detector that scores the images; None: the model's own.

    Raises:
        DataError: The collection does not say of which model it is, or no detector is known for the model.
        UnknownNameError: There is no such detector.
    """
    model = settings.get("model")
    if not isinstance(model, str):
        raise DataError("the collection does not say of which model it is, so nothing can be steered; collect again")
    detector, side = detector or default_detector(model), settings.get("side")
    registry.load("detectors", detector.partition(":")[0])  # reports a mistake before the training, which takes long
    config = EvaluateConfig(
        model=model,
        benchmark=BENCHMARK,
        limit=prompts,
        images=1,
        height=side,
        width=side,
        detector=detector,
    )
    return partial(_steer, config)


def _steer(config: EvaluateConfig, folder: Path) -> dict[tuple[int, int], bool]:
    content = f"{storage.sha256(folder / CLASSIFIER)} {config.detector}"
    out = folder / f"steered-{config.limit}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    evaluate(replace(config, classifier=str(folder), out=str(out)))
    return {(row["index"], row["sample"]): row["correct"] for row in read_rows(out)}
