"""Load the pipeline that a config names, with its sampling arguments and its steering."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from learn_to_steer import digests, registry
from learn_to_steer.classifier import load
from learn_to_steer.conditioning import record
from learn_to_steer.configs import ModelConfig
from learn_to_steer.errors import MismatchError, UnsupportedError
from learn_to_steer.families import Variant, find
from learn_to_steer.loading import load_pipeline
from learn_to_steer.losses.base import Loss
from learn_to_steer.losses.learned import Learned
from learn_to_steer.model_names import classifier_source
from learn_to_steer.model_options import PipelineConfig, PlacementConfig
from learn_to_steer.placement import Placement
from learn_to_steer.sampling import sampling_arguments
from learn_to_steer.steering import SteeredPipeline, Steerer
from learn_to_steer.steering.compatibility import check_pipeline
from learn_to_steer.steering.config import resolve_config
from learn_to_steer.steering.memory import estimate
from learn_to_steer.steering.trained_classifier import load_classifier

UNSTEERED = "none"
LEARNED = "learned"
CHECKPOINTING = ("auto", "on", "off")
# Peak memory of an iteration, as a multiple of the activations that it keeps: kernels and gradients need memory too.
PEAK = 1.6
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A loaded pipeline, ready to generate images.

    Attributes:
        pipe: The diffusers pipeline.
        variant: Its variant, with the model's facts.
        sampling: Keyword arguments of every pipeline call: steps, guidance, size.
        steered: The same pipeline, steered; None if the config says not to steer.
        fingerprints: Short hashes of the weights: of the "denoiser" and, if there is one, of the "classifier". The
            "temperatures" of a classifier that has some, in words.
    """

    pipe: Any
    variant: Variant
    sampling: dict[str, Any]
    steered: SteeredPipeline | None
    fingerprints: dict[str, str]


def open_pipeline(config: PlacementConfig, *, steered: bool = False) -> tuple[Any, Variant]:
    """Load the pipeline that ``config`` names, with its dtype and device.

    Args:
        config: The settings.
        steered: As for ``load_pipeline``.

    Returns:
        The pipeline and its variant.

    Raises:
        SteerError: As in ``load_pipeline``.
    """
    placement = Placement(config.dtype, config.offload, config.quantize, config.lora, config.revision, config.base)
    scheduler = config.scheduler if isinstance(config, PipelineConfig) else None
    pipe = load_pipeline(config.model, config.device, placement, scheduler, steered=steered)
    return pipe, pipe.steering_variant


def open_model(config: ModelConfig, pipe: Any = None, loss: Loss | None = None) -> Model:
    """Load the pipeline, the loss and the classifier that ``config`` names, and check that they fit together.

    Args:
        config: The settings.
        pipe: A pipeline that ``sampling.remember`` knows, used instead of the one that ``config`` names.
        loss: A loss that is used instead of the one that ``config`` names.

    Returns:
        The model.

    Raises:
        UnknownNameError: A model, loss, profile, setting or scheduler that does not exist.
        DataError: The weights or the classifier are missing or cannot be read.
        MismatchError: The classifier was made for another model, or the loss uses none.
        UnsupportedError: Steering has no effect with the scheduler, the loss does not support the model's family, the
            model cannot generate images of that size, or there is too little memory.
    """
    choices = [UNSTEERED, *registry.names("losses")]
    name = registry.normal(config.objective)
    if name not in choices:
        raise registry.unknown("loss", config.objective, choices)
    resolve_config({}, None, config.profile, config.settings)  # reports mistakes before a model is loaded
    if config.checkpointing not in CHECKPOINTING:
        raise registry.unknown("checkpointing", config.checkpointing, CHECKPOINTING)
    pipe = open_pipeline(config, steered=name != UNSTEERED)[0] if pipe is None else pipe
    variant: Variant = pipe.steering_variant
    family = find(pipe)
    sampling = _sampling(config, variant, family.pixel_multiple(pipe))
    fingerprints = {"denoiser": digests.norms_and_biases(getattr(pipe, family.denoiser))}
    if name == UNSTEERED:
        return Model(pipe, variant, sampling, None, fingerprints)
    loss = _build_loss(name, pipe, variant, config) if loss is None else loss
    settings = resolve_config(loss.schedule, variant, config.profile, config.settings)
    check_pipeline(pipe, family)
    if "checkpointing" not in config.settings:
        settings = settings.changed(checkpointing=_checkpointing(config, pipe, sampling, loss))
    steered = Steerer(loss, settings).on(pipe)
    if isinstance(loss, Learned):
        fingerprints["classifier"] = digests.norms_and_biases(loss.classifier)
        if temperatures := loss.classifier.config.temperatures:  # which may change when steering stops
            fingerprints["temperatures"] = " ".join(map(str, temperatures))
    return Model(pipe, variant, sampling, steered, fingerprints)


def _sampling(config: ModelConfig, variant: Variant, multiple: int) -> dict[str, Any]:
    """The arguments of a pipeline call; UnsupportedError unless its size is a multiple of ``multiple`` pixels."""
    given = {
        "num_inference_steps": config.steps,
        variant.guidance_argument: config.guidance,
        "height": config.height,
        "width": config.width,
    }
    sampling: dict[str, Any] = sampling_arguments(variant) | {
        name: value for name, value in given.items() if value is not None
    }
    for side in ("height", "width"):
        if sampling[side] % multiple:
            raise UnsupportedError(
                f"{side} must be a multiple of {multiple} pixels, not {sampling[side]}; choose another --{side}"
            )
    return sampling


def _build_loss(name: str, pipe: Any, variant: Variant, config: ModelConfig) -> Loss:
    """The loss called ``name``, for the attention maps of ``pipe``."""
    if name == LEARNED:
        loaded = load_classifier(config.classifier) if config.classifier else load(classifier_source(variant))
        return Learned(loaded.to(pipe.device))
    if config.classifier is not None:
        raise MismatchError(f"the loss {name} uses no classifier; leave --classifier out, or choose --loss {LEARNED}")
    family = find(pipe)
    loss: Loss = registry.load("losses", name).build(family.layout(getattr(pipe, family.denoiser)))
    return loss


def _checkpointing(config: ModelConfig, pipe: Any, sampling: Mapping[str, Any], loss: Loss) -> bool:
    """Whether to use gradient checkpointing; "auto": if an iteration does not fit into GPU memory without it."""
    if config.checkpointing != "auto":
        return config.checkpointing == "on"
    device = pipe._execution_device  # where it will run: until then, an offloaded pipeline is on the CPU
    if device.type != "cuda" or config.quantize:
        return bool(config.quantize)
    family = find(pipe)
    size = family.drawn_size(pipe, sampling["height"], sampling["width"], sampling)
    snapshot = record(pipe, family, ["a dog to the left of a cat"], *size, sampling)
    memory = estimate(pipe, family, snapshot, loss.spec)
    free, _ = torch.cuda.mem_get_info(device)
    if config.offload:  # the denoiser is not on the GPU yet
        free -= sum(p.numel() * p.element_size() for p in getattr(pipe, family.denoiser).parameters())
    weights, kept, checkpointed, gib_free = (
        size / 2**30 for size in (memory.weights, memory.kept, memory.checkpointed, free)
    )
    message = (
        f"the weights take {weights:.1f} GiB; an iteration of {config.rows} images keeps {kept:.1f} GiB for each "
        f"({checkpointed:.1f} with gradient checkpointing); {gib_free:.1f} GiB are free"
    )
    if PEAK * memory.checkpointed * config.rows > free:
        raise UnsupportedError(
            f"{message}: too few even with gradient checkpointing; generate fewer or smaller images at once (--batch, "
            "--images, --height, --width), or reduce the memory of the weights (--offload model, --quantize 4bit)"
        )
    log.info(message)
    return PEAK * memory.kept * config.rows > free
