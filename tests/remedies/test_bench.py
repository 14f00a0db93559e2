"""Remedies of ``bench`` and of models with random weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from told import told

from learn_to_steer import random_models
from learn_to_steer.benchmarks import prompts
from learn_to_steer.classifier import load, save
from learn_to_steer.loading import skeleton
from learn_to_steer.random_models import random_pipeline
from learn_to_steer.speed import bench
from learn_to_steer.speed.config import BenchConfig
from learn_to_steer.speed.models import open_measured_model, random_classifier


def test_weights_that_do_not_fit(saved_sd, monkeypatch) -> None:
    _, empty = skeleton(str(saved_sd))
    size = sum(parameter.numel() for parameter in empty.parameters())
    monkeypatch.setattr(random_models, "total_memory", lambda device: 3 * size)
    with told("use --dtype bfloat16, or name a folder of configs with fewer layers"):
        random_pipeline(str(saved_sd))
    pipe = random_pipeline(str(saved_sd), dtype="bfloat16")
    assert pipe.unet.dtype == pipe.text_encoder.dtype == torch.bfloat16


def test_more_layers_than_there_are(tiny_sd) -> None:
    with told("; make it smaller"):
        random_classifier(tiny_sd, 8)
    random_classifier(tiny_sd, 7)


def test_what_cannot_be_measured(saved_sd) -> None:
    model = {"model": str(saved_sd), "device": "cpu"}
    with told("so there is nothing to compare; leave it out"):
        open_measured_model(BenchConfig(**model, objective="none"))
    with told("leave out --depth, or --classifier and --loss"):
        open_measured_model(BenchConfig(**model, objective="for-spatial", depth=2))
    with told("; leave it out"):
        open_measured_model(BenchConfig(**model, random=True, offload="model"))
    opened = open_measured_model(BenchConfig(**model, random=True, depth=3))
    assert (opened.weights, opened.classifier, opened.depth) == ("random", "random", 3)


def test_prompts_that_a_classifier_cannot_be_steered_to(saved_sd, tmp_path, monkeypatch) -> None:
    classifier = load(saved_sd / "classifier")
    classes = tuple("right" if name == "right of" else name for name in classifier.config.classes)
    classifier.config = replace(classifier.config, classes=classes)
    save(classifier, tmp_path / "own")
    right = [one for one in prompts(bench.BENCHMARK) if one.relations[0].predicate == "right of"]
    monkeypatch.setattr(bench, "_prompts", lambda opened, config: right[:1])
    config = BenchConfig(model=str(saved_sd), classifier=str(tmp_path / "own"), steps=2, device="cpu")
    with told("; use another classifier or loss"):
        bench.measure_model(config)
    assert bench.measure_model(replace(config, classifier=str(saved_sd / "classifier")))["prompts"] == 1
