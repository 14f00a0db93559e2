"""From a config to a loaded pipeline, its sampling and its steering."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from learn_to_steer import digests, registry
from learn_to_steer.classifier import load
from learn_to_steer.conditioning import record
from learn_to_steer.configs import ModelConfig, PipelineConfig, PlacementConfig
from learn_to_steer.errors import MismatchError, UnsupportedError
from learn_to_steer.families import Variant, find
from learn_to_steer.loading import Placement, load_pipeline
from learn_to_steer.losses.base import Loss
from learn_to_steer.losses.learned import Learned
from learn_to_steer.model_names import classifier_source, package_folder
from learn_to_steer.sampling import sampling_arguments
from learn_to_steer.steering import SteeredPipeline, Steerer
from learn_to_steer.steering.compatibility import check_pipeline
from learn_to_steer.steering.config import resolve_config
from learn_to_steer.steering.memory import estimate

UNSTEERED = "none"
LEARNED = "learned"
CHECKPOINTING = ("auto", "on", "off")
# Peak memory of an iteration over the activations it keeps: kernels need room, and gradients are held as well.
PEAK = 1.6
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        pipe: The diffusers pipeline.
        variant: The facts of the model.
        sampling: Keyword arguments of every call: steps, guidance, size.
        steered: The same pipeline, steered. None: it is not to be steered.
        fingerprints: Short hashes of the weights in use, "denoiser" and, if there is one, "classifier".
    """

    pipe: Any
    variant: Variant
    sampling: dict[str, Any]
    steered: SteeredPipeline | None
    fingerprints: dict[str, str]


def open_pipeline(config: PlacementConfig) -> tuple[Any, Variant]:
    """Load the pipeline that ``config`` names, placed as it says.

    Returns:
        The pipeline and the facts of its model.

    Raises:
        SteerError: As ``load_pipeline``.
    """
    placement = Placement(config.dtype, config.offload, config.quantize, config.lora, config.revision)
    scheduler = config.scheduler if isinstance(config, PipelineConfig) else None
    pipe = load_pipeline(config.model, config.device, placement, scheduler)
    return pipe, pipe.steering_variant


def open_model(config: ModelConfig) -> Model:
    """Load what ``config`` names, and check that it fits together.

    Raises:
        UnknownNameError: A model, loss, profile, setting or scheduler that does not exist.
        DataError: Weights or a classifier that are missing or cannot be read.
        MismatchError: The classifier was made for another model, or the loss uses none.
        UnsupportedError: A scheduler with which steering has no effect, a loss that this family cannot have, a size
            that the model cannot draw, or too little memory.
    """
    choices = [UNSTEERED, *registry.names("losses")]
    name = registry.normal(config.objective)
    if name not in choices:
        raise registry.unknown("loss", config.objective, choices)
    resolve_config({}, None, config.profile, config.settings)  # a mistake in them is found before a model is loaded
    if config.checkpointing not in CHECKPOINTING:
        raise registry.unknown("checkpointing", config.checkpointing, CHECKPOINTING)
    pipe, variant = open_pipeline(config)
    family = find(pipe)
    sampling = _sampling(config, variant, family.pixel_multiple(pipe))
    fingerprints = {"denoiser": digests.norms_and_biases(getattr(pipe, family.denoiser))}
    if name == UNSTEERED:
        return Model(pipe, variant, sampling, None, fingerprints)
    objective = _objective(name, pipe, variant, config)
    settings = resolve_config(objective.schedule, variant, config.profile, config.settings)
    check_pipeline(pipe, family)
    if "checkpointing" not in config.settings:
        settings = settings.changed(checkpointing=_checkpointing(config, pipe, sampling))
    steered = Steerer(objective, settings).on(pipe)
    if isinstance(objective, Learned):
        fingerprints["classifier"] = digests.norms_and_biases(objective.classifier)
    return Model(pipe, variant, sampling, steered, fingerprints)


def _sampling(config: ModelConfig, variant: Variant, cell: int) -> dict[str, Any]:
    """The arguments of a pipeline call; UnsupportedError for a size that is no multiple of ``cell`` pixels."""
    given = {
        "num_inference_steps": config.steps,
        "guidance_scale": config.guidance,
        "height": config.height,
        "width": config.width,
    }
    sampling: dict[str, Any] = sampling_arguments(variant) | {
        name: value for name, value in given.items() if value is not None
    }
    for side in ("height", "width"):
        if sampling[side] % cell:
            raise UnsupportedError(f"{side} must be a multiple of {cell} pixels, not {sampling[side]}")
    return sampling


def _objective(name: str, pipe: Any, variant: Variant, config: ModelConfig) -> Loss:
    """The loss called ``name``, for the maps of ``pipe``."""
    if name == LEARNED:
        source = config.classifier or classifier_source(variant)
        return Learned(load(package_folder(str(source))).to(pipe.device))
    if config.classifier is not None:
        raise MismatchError(f"the loss {name} uses no classifier; leave --classifier out, or steer with {LEARNED}")
    family = find(pipe)
    built: Loss = registry.load("losses", name).build(family.layout(getattr(pipe, family.denoiser)))
    return built


def _checkpointing(config: ModelConfig, pipe: Any, sampling: Mapping[str, Any]) -> bool:
    """Whether to use gradient checkpointing; "auto": if an iteration would not fit into the GPU without it."""
    if config.checkpointing != "auto":
        return config.checkpointing == "on"
    device = pipe._execution_device  # where it will run: an offloaded pipeline waits on the CPU
    if device.type != "cuda" or config.quantize:
        return bool(config.quantize)
    family = find(pipe)
    recording = record(pipe, family, ["a dog to the left of a cat"], sampling["height"], sampling["width"], sampling)
    need = estimate(pipe, family, recording)
    free, _ = torch.cuda.mem_get_info(device)
    if config.offload:  # the denoiser is still to come
        free -= sum(p.numel() * p.element_size() for p in getattr(pipe, family.denoiser).parameters())
    told = "weights {:.1f} GiB; a pass keeps {:.1f} GiB an image ({:.1f} checkpointed), {} at once; {:.1f} GiB are free"
    sizes = [size / 2**30 for size in (need.weights, need.kept, need.checkpointed, free)]
    message = told.format(*sizes[:3], config.rows, sizes[3])
    if PEAK * need.checkpointed * config.rows > free:
        raise UnsupportedError(
            f"{message}: too few even with gradient checkpointing; make fewer or smaller pictures at a time (--batch, "
            "--images, --height, --width), or hold the weights smaller (--offload model, --quantize 4bit)"
        )
    log.info(message)
    return PEAK * need.kept * config.rows > free
