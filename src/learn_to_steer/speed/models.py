"""Opens the model that is measured; what it lacks, weights or a classifier, is random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from learn_to_steer import geometry, registry
from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
from learn_to_steer.collection.noise_levels import default_levels
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.evaluation.model import LEARNED, UNSTEERED, Model, open_model, open_pipeline
from learn_to_steer.families import find
from learn_to_steer.losses.base import NEVER
from learn_to_steer.losses.learned import Learned
from learn_to_steer.random_models import has_weights, random_pipeline
from learn_to_steer.speed.config import BenchConfig
from learn_to_steer.steering.config import STORED_NAMES
from learn_to_steer.training import TrainConfig

# Iterations of an image where a classifier is random and so never satisfied; a trained one needs about as many.
USUAL_ITERATIONS = 8


@dataclass(frozen=True)
class MeasuredModel:
    """A model to be measured.

    Attributes:
        model: The pipeline, with its steering.
        weights: "trained" or "random".
        classifier: "trained" or "random"; None if the loss has no classifier.
        depth: Number of layers that the denoiser runs until the loss has all of its maps.
        layers: Number of layers whose maps can be read.
        notes: What is not as in a usual call, in sentences.
    """

    model: Model
    weights: str
    classifier: str | None
    depth: int
    layers: int
    notes: tuple[str, ...]


def open_measured_model(config: BenchConfig) -> MeasuredModel:
    """Open the model that ``config`` names.

    Args:
        config: The settings.

    Raises:
        SteerError: As ``open_model`` and ``random_pipeline``.
        DataError: Nothing would be steered, or both a classifier and the depth of a random one are given.
        UnsupportedError: Adapters or quantised weights are named for random weights.
    """
    learned = registry.normal(config.objective) == LEARNED
    if registry.normal(config.objective) == UNSTEERED:
        raise DataError("with --loss none nothing is steered, so there is nothing to compare; leave it out")
    if config.depth is not None and (config.classifier or not learned):
        raise DataError("--depth is that of a random classifier; leave out --depth, or --classifier and --loss")
    weightless = config.random or not has_weights(config.model)
    pipe = _random_weights(config) if weightless else open_pipeline(config, steered=True)[0]
    notes, classifier, loss = [], "trained" if learned else None, None
    if weightless:
        notes.append("the weights are random, so the images are not scored")
    own = not weightless and pipe.steering_variant.classifier is not None
    if learned and not config.classifier and (config.depth is not None or not own):
        classifier, loss = "random", Learned(random_classifier(pipe, config.depth).to(pipe.device))
    if classifier is not None and (weightless or classifier == "random"):
        config = _with_usual_iterations(config, notes)
    model = open_model(config, pipe, loss)
    depth, count = _depth(model)
    if classifier == "random":
        notes.append(f"the classifier is random; it reads the first {depth} of {count} layers")
    return MeasuredModel(model, "random" if weightless else "trained", classifier, depth, count, tuple(notes))


def random_classifier(pipe: Any, depth: int | None = None) -> RelationClassifier:
    """Make an untrained classifier of the size that ``train`` makes, for the maps of a pipeline.

    Args:
        pipe: A diffusers pipeline.
        depth: Number of layers that it reads, those that run first. None: a third of all.

    Raises:
        DataError: The denoiser has fewer layers.
    """
    family = find(pipe)
    layout = family.layout(getattr(pipe, family.denoiser))
    count = len(layout.layers)
    if depth is not None and depth > count:
        raise DataError(f"the model has {count} layers, but depth is {depth}; make it smaller")
    first = family.running_order(layout.layers)[: depth or max(1, round(count / 3))]
    layout, channels = layout.some(first)
    levels, sizes = default_levels(pipe, family), TrainConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = RelationClassifier(
            ClassifierConfig(
                classes=tuple(sorted((*geometry.BASIC, geometry.NEUTRAL))),
                channels=len(channels),
                times=len(levels),
                levels=levels,
                width=sizes.width,
                layers=sizes.layers,
                heads=sizes.heads,
                hidden=sizes.hidden,
                query_heads=sizes.heads,
                head_layers=sizes.head_layers,
                head_heads=sizes.head_heads,
                head_hidden=sizes.head_hidden,
                layout=layout.as_dict(),
            )
        )
    return classifier.eval().requires_grad_(False)


def _random_weights(config: BenchConfig) -> Any:
    """The pipeline with random weights."""
    for option in ("lora", "offload", "quantize"):
        if getattr(config, option):
            raise UnsupportedError(f"random weights cannot be used with --{option}; leave it out")
    return random_pipeline(config.model, config.device, config.dtype, config.scheduler, config.base)


def _with_usual_iterations(config: BenchConfig, notes: list[str]) -> BenchConfig:
    """The config with a fixed number of iterations: what a random network says must not decide how many are made."""
    if config.profile != "default":
        return config
    given = {STORED_NAMES.get(name, name) for name in config.settings}
    usual = {"max_iterations": USUAL_ITERATIONS, "threshold": NEVER}
    added = {name: value for name, value in usual.items() if STORED_NAMES.get(name, name) not in given}
    if "max_iterations" in added:
        notes.append(
            f"steering makes at most {USUAL_ITERATIONS} iterations for each image and never stops earlier; "
            "--set max_iterations=N changes that"
        )
    return replace(config, settings=added | dict(config.settings))


def _depth(model: Model) -> tuple[int, int]:
    """The number of layers that run until the loss has all its maps, and the number of all."""
    steered: Any = model.steered
    family, pipe = steered.family, model.pipe
    multiple = family.pixel_multiple(pipe)
    layers = family.layout(getattr(pipe, family.denoiser)).layers
    size = (model.sampling["height"] // multiple, model.sampling["width"] // multiple)
    choose = steered.loss.spec.choose
    order = family.running_order(layers)
    read = choose(layers, *size) if choose else layers
    return max(order.index(layer) for layer in read) + 1, len(layers)
