"""A pipeline, how it is sampled, and the steering on it, from names."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from learn_to_steer import catalog
from learn_to_steer.classifier import RelationClassifier, load
from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError, MismatchError, UnsupportedError
from learn_to_steer.families import Variant, find
from learn_to_steer.families._load import Placement, load_pipeline, package_folder
from learn_to_steer.objectives._protocol import Objective
from learn_to_steer.objectives.learned import Learned
from learn_to_steer.registry import DEFAULT_MODEL
from learn_to_steer.steering import SteeredPipeline, Steerer, SteeringConfig, profile
from learn_to_steer.steering.compatibility import check_pipeline
from learn_to_steer.steering.memory import estimate

UNSTEERED = "none"
LEARNED = "learned"
CHECKPOINTING = ("auto", "on", "off")
PEAK = 1.6  # peak of a pass over what it keeps: kernels need room, and gradients live beside what they come from
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelConfig:
    """Which model, sampled and steered how; None stands for the variant's own value.

    ``objective`` "none" is the unsteered model; others than "learned" need no classifier and are steered as they were
    published unless ``profile`` says otherwise. ``settings`` change single settings of the steering profile.
    ``height`` and ``width`` in pixels. ``device`` "auto" is the GPU when there is one. ``checkpointing`` "auto" trades
    time for memory when a pass would not fit. The others are as in ``Placement``.
    """

    model: str = DEFAULT_MODEL
    objective: str = "learned"
    profile: str = "default"
    classifier: str | None = None
    scheduler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    device: str = "auto"
    dtype: str | None = None
    offload: str | None = None
    quantize: str | None = None
    lora: tuple[str, ...] = ()
    revision: str | None = None
    checkpointing: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Images of one pipeline call, which share each steering pass."""
        return 1


@dataclass(frozen=True)
class Model:
    """A loaded pipeline, its sampling (keyword arguments of a call), and its steered twin unless it has none.

    ``fingerprints`` tell the weights in use: of the denoiser and, if it steers, of the classifier.
    """

    pipe: Any
    variant: Variant
    sampling: dict[str, Any]
    steered: SteeredPipeline | None
    fingerprints: dict[str, str]


def open_pipeline(config: ModelConfig) -> tuple[Any, Variant]:
    """The pipeline that ``config`` names, placed as it says, and its variant; the errors of ``load_pipeline``."""
    placement = Placement(config.dtype, config.offload, config.quantize, tuple(config.lora), config.revision)
    return load_pipeline(config.model, resolve_device(config.device), placement, config.scheduler)


def open_model(config: ModelConfig) -> Model:
    """Load what ``config`` names and check that it fits together.

    Raises the errors of ``load_pipeline``, UnknownNameError for an objective, profile or setting, DataError
    and MismatchError for a classifier, and UnsupportedError for a scheduler that would lose the steering and for an
    objective that this family cannot have.
    """
    choices = [UNSTEERED, *catalog.names("objectives")]
    if catalog.normal(config.objective) not in choices:
        raise catalog.unknown("objective", config.objective, choices)
    profile(config.profile).changed(**config.settings)
    if config.checkpointing not in CHECKPOINTING:
        raise catalog.unknown("checkpointing", config.checkpointing, CHECKPOINTING)
    pipe, variant = open_pipeline(config)
    sampling = {
        "num_inference_steps": config.steps or variant.steps,
        "guidance_scale": variant.guidance if config.guidance is None else config.guidance,
        "height": config.height or variant.side,
        "width": config.width or variant.side,
        **variant.arguments,
    }
    for side in ("height", "width"):
        if sampling[side] % find(pipe).cell(pipe):
            raise UnsupportedError(f"{side} must be a multiple of {find(pipe).cell(pipe)} pixels, not {sampling[side]}")
    fingerprints = {"denoiser": _fingerprint(getattr(pipe, find(pipe).denoiser))}
    if catalog.normal(config.objective) == UNSTEERED:
        return Model(pipe, variant, sampling, None, fingerprints)
    objective = _objective(pipe, variant, config)
    settings = profile(config.profile, variant.rate, objective.schedule)
    settings = tuned(settings, variant).changed(**config.settings)
    check_pipeline(pipe, find(pipe))
    if "checkpointing" not in config.settings:
        settings = settings.changed(checkpointing=_checkpointing(config, pipe, sampling))
    steered = Steerer(objective, settings).on(pipe)
    if isinstance(objective, Learned):
        fingerprints["classifier"] = _fingerprint(objective.classifier)
    return Model(pipe, variant, sampling, steered, fingerprints)


def tuned(settings: SteeringConfig, variant: Variant) -> SteeringConfig:
    """The settings of a profile with what was chosen for the model; published schedules keep their own."""
    ours = dict(variant.ours) if settings.profile in ("default", "equal") else {}
    if settings.profile == "equal":
        ours.pop("threshold", None)  # nobody stops there
    return settings.changed(**{**variant.steering, **ours})


def _objective(pipe: Any, variant: Variant, config: ModelConfig) -> Objective:
    name = catalog.normal(config.objective)
    if name == LEARNED:
        return Learned(_classifier(pipe, variant, config))
    if config.classifier is not None:
        raise MismatchError(f"the objective {name} uses no classifier; leave --classifier out, or steer with {LEARNED}")
    family = find(pipe)
    built: Objective = catalog.load("objectives", name).build(family.layout(getattr(pipe, family.denoiser)))
    return built


def _classifier(pipe: Any, variant: Variant, config: ModelConfig) -> RelationClassifier:
    source = config.classifier or variant.classifier
    if source is None:
        raise DataError(f"no classifier comes with {config.model}; name one with --classifier, or don't steer")
    return load(package_folder(source)).to(pipe.device)


def _checkpointing(config: ModelConfig, pipe: Any, sampling: Mapping[str, Any]) -> bool:
    """Whether to checkpoint: as asked, or, when it is left open, whether a pass would fill the GPU without."""
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


def _fingerprint(network: nn.Module) -> str:
    """Twelve hex digits that change with training: a hash of the norms' and biases' values."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def resolve_device(name: str) -> str:
    """A device that works: "auto" is the GPU when there is one; UnsupportedError for one that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedError(f"the device {name!r} cannot be used: {' '.join(str(error).split())}") from error
    return name
