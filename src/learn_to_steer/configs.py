"""The settings of each task (generate, evaluate, score, collect, train) as frozen dataclasses, each declared once.

A field annotated with typer's ``Option`` or ``Argument`` is also an option of the command line, with the help text,
limits and default that are written here (``cli.commands`` makes the options). ``show_default`` says in words what None
stands for. In Python, the same types and limits hold. This module imports neither torch nor diffusers, so that
``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from typer import Argument, Option

from learn_to_steer.model_options import PipelineConfig
from learn_to_steer.shared_options import (
    MAX_BATCH,
    MAX_GUIDANCE,
    MAX_IMAGES,
    MAX_LIMIT,
    MAX_SEED,
    MAX_SIDE,
    MAX_STEPS,
    MAX_TRAIN_SEED,
    MODELS_OWN,
    Against,
    Contrast,
    Data,
    Detector,
    Detectors,
    Inversion,
    Maps,
    Objects,
    Seed,
    Similarity,
    SpacyModel,
    Tries,
    Verifier,
)
from learn_to_steer.validation import Checked
from learn_to_steer.worker_options import WorkersConfig

# One function per group in which --help lists the options.
_sampling = partial(Option, rich_help_panel="Sampling")
_steering = partial(Option, rich_help_panel="Steering")
_benchmark = partial(Option, rich_help_panel="Benchmark")
_images = partial(Option, rich_help_panel="Images")
_training = partial(Option, rich_help_panel="Training")
_output = partial(Option, rich_help_panel="Output")

# Another name of a steering profile -> its name in files.
PROFILE_ALIASES = {"fixed-budget": "equal"}


@dataclass(frozen=True)
class OptionName:
    """In a field's annotation: the option's name in --config files, where it is not the field's name."""

    name: str


@dataclass(frozen=True)
class ModelConfig(PipelineConfig):
    """A model, how it is sampled, and how it is steered."""

    steps: Annotated[int | None, _sampling(min=1, max=MAX_STEPS, help="Denoising steps.", show_default=MODELS_OWN)] = (
        None
    )
    guidance: Annotated[
        float | None, _sampling(min=0.0, max=MAX_GUIDANCE, help="Guidance scale.", show_default=MODELS_OWN)
    ] = None
    height: Annotated[
        int | None, _sampling(min=8, max=MAX_SIDE, help="Height of an image, in pixels.", show_default=MODELS_OWN)
    ] = None
    width: Annotated[
        int | None, _sampling(min=8, max=MAX_SIDE, help="Width of an image, in pixels.", show_default=MODELS_OWN)
    ] = None
    objective: Annotated[
        str,
        _steering(
            "--loss",
            "--objective",
            help="The loss to steer by: learned (a relation classifier), a published one (see: list losses), or none "
            "(images of the model without steering).",
            metavar="NAME",
        ),
    ] = "learned"
    classifier: Annotated[
        str | None,
        _steering(help="Folder or hub id of the learned loss's classifier.", show_default=MODELS_OWN, metavar="DIR"),
    ] = None
    profile: Annotated[
        str,
        _steering(
            help="Group of steering settings: default (a published loss is run as published), fixed-budget (all losses "
            "with the same number of iterations, for comparisons; also: equal) or official (as in the authors' code).",
            metavar="NAME",
        ),
    ] = "default"
    settings: Annotated[
        Mapping[str, Any],
        OptionName("setting"),
        _steering(
            "--set",
            help="Change one steering setting, a field of SteeringConfig, e.g. threshold=0.9. May be repeated.",
            show_default="as the profile says",
            metavar="NAME=VALUE",
        ),
    ] = field(default_factory=dict)
    checkpointing: Annotated[
        str,
        _steering(
            help="Gradient checkpointing, which saves memory and takes longer: on, off, or auto (if memory is short).",
            metavar="WHEN",
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "profile", PROFILE_ALIASES.get(self.profile, self.profile))

    @property
    def rows(self) -> int:
        """Number of images per pipeline call."""
        return 1


@dataclass(frozen=True)
class GenerateConfig(WorkersConfig, ModelConfig):
    """Images of prompts."""

    prompts: Annotated[
        tuple[str, ...], OptionName("prompt"), Argument(help="One or more prompts, each in quotes.", show_default=False)
    ] = ()
    images: Annotated[int, _sampling(min=1, max=MAX_IMAGES, help="Number of images per prompt.")] = 1
    seed: Seed = 0
    relations: Annotated[
        tuple[str, ...],
        _steering(
            "--relation",
            help='Steer to this relation, e.g. "dog | left of | cat". May be repeated.',
            show_default="the relations in the prompt",
            metavar="'A | PREDICATE | B'",
        ),
    ] = ()
    strict: Annotated[bool, _steering("--strict", help="Stop with an error if a prompt has no relation.")] = False
    tries: Tries = 1
    verifier: Verifier = None
    nlp: SpacyModel = None
    out: Annotated[str, _output(help="Folder to write to.", metavar="DIR")] = "out/generate"

    @property
    def rows(self) -> int:
        return self.images


# Settings with which a stopped evaluation may go on at other values. They change neither an image nor its score, except
# that other batches change pixels by rounding. The file in "data" is checked by its hash, not by its path.
FREE = (
    *("out", "data", "images", "limit", "batch", "device", "offload", "checkpointing"),
    *("against", "similarity", "maps"),
)


@dataclass(frozen=True)
class EvaluateConfig(WorkersConfig, ModelConfig):
    """A model measured on a benchmark, or on the prompts in a file."""

    benchmark: Annotated[
        str | None,
        _benchmark(help="A benchmark (see: list benchmarks), or give --prompts.", show_default="none", metavar="NAME"),
    ] = None
    prompts: Annotated[
        str | None,
        _benchmark(
            help="Your own prompts instead of a benchmark: a JSON object per line, with 'prompt' and, if you like, "
            "'relations'.",
            show_default="none",
            metavar="FILE.jsonl",
        ),
    ] = None
    data: Data = None
    limit: Annotated[
        int | None,
        _benchmark(
            min=1,
            max=MAX_LIMIT,
            help="Use only this many prompts: a random subset with the same shares of tasks and relations.",
            show_default="all",
        ),
    ] = None
    detector: Detector = None
    verifier: Verifier = None
    tries: Tries = 1
    images: Annotated[int, _sampling(min=1, max=MAX_IMAGES, help="Number of images per prompt.")] = 4
    seed: Seed = 0
    batch: Annotated[int, _sampling(min=1, max=MAX_BATCH, help="Number of images made at a time.")] = 8
    against: Against = None
    similarity: Similarity = None
    maps: Maps = 0
    out: Annotated[str, _output(help="Folder to write to.", metavar="DIR")] = "out/evaluate"

    @property
    def rows(self) -> int:
        return self.batch

    def as_dict(self) -> dict[str, Any]:
        """Return all settings, as they are written to JSON."""
        return self.written() | {"lora": list(self.lora)}

    def decisive(self) -> dict[str, Any]:
        """Return the settings that an image or its score depends on. A single try is left out, as in version 0.1.0."""
        values = self.written()
        left_out = FREE if self.tries > 1 else (*FREE, "tries")
        return {name: value for name, value in values.items() if name not in left_out}


@dataclass(frozen=True)
class ScoreConfig(WorkersConfig):
    """Existing images, and the prompts that they are scored by."""

    pictures: Annotated[
        str,
        Argument(
            help="Folder of images: the --out of evaluate, GenEval's layout, T2I-CompBench's file names, or with a "
            "JSON-lines manifest (docs/benchmarks.md).",
            metavar="DIR",
        ),
    ]
    benchmark: Annotated[
        str | None,
        _benchmark(help="A benchmark (see: list benchmarks).", show_default="the evaluated one", metavar="NAME"),
    ] = None
    prompts: Annotated[
        str | None,
        _benchmark(
            help="Your own prompts instead of a benchmark, as for evaluate.", show_default="none", metavar="FILE.jsonl"
        ),
    ] = None
    data: Data = None
    detector: Detector = None
    device: Annotated[
        str, _benchmark(help="Device of the detector: cpu, cuda, cuda:1, ... or auto.", metavar="NAME")
    ] = "cpu"
    images: Annotated[
        int | None, _benchmark(min=1, max=MAX_IMAGES, help="Number of images per prompt.", show_default="all")
    ] = None
    limit: Annotated[
        int | None,
        _benchmark(
            min=1,
            max=MAX_LIMIT,
            help="Use only this many prompts, the same ones as evaluate with this number.",
            show_default="all",
        ),
    ] = None
    seed: Annotated[int, _benchmark(min=0, max=MAX_SEED, help="Random seed of that subset.")] = 0
    against: Against = None
    similarity: Similarity = None
    out: Annotated[str, _output(help="Folder to write to.", metavar="DIR")] = "out/score"


@dataclass(frozen=True)
class CollectSettings(Checked):
    """Labelled images and how their attention maps are collected, except for what depends on the model."""

    model: str
    source: Annotated[
        str | None,
        _images(
            help="Source of labelled images (see: list sources).",
            metavar="NAME",
            show_default="the model's own, else that of the default model",
        ),
    ] = None
    data: Annotated[
        str | None,
        _images(
            help="File with the images and labels of a source that reads one (docs/data.md).",
            show_default="none",
            metavar="FILE",
        ),
    ] = None
    exclude_benchmarks: Annotated[
        bool,
        _images("--exclude-benchmarks", help="Leave out pairs of objects that occur in benchmarks."),
    ] = False
    objects: Objects = None
    detectors: Detectors = None
    contrast: Contrast = None
    inversion: Inversion = None
    limit: Annotated[int, _images(min=1, max=MAX_LIMIT, help="Number of images at most.")] = 1500
    seed: Annotated[int, _images(min=0, max=MAX_SEED, help="Random seed of the choice of images and of the noise.")] = 0
    diagonals: Annotated[bool, _images("--diagonals", help="Also label diagonal relations (above left of, ...).")] = (
        False
    )
    quality: Annotated[
        float | None,
        _sampling(
            min=0.0,
            max=1e12,
            help="Leave out images whose inversion is worse than this, in the unit of the inversion.",
            show_default="the inversion's own limit",
        ),
    ] = None
    reduce: Annotated[
        Literal["none", "layer-mean", "mean"],
        _output(
            help="Average the maps: none (keep one per attention head), layer-mean (one per layer) or mean (one).",
            metavar="HOW",
        ),
    ] = "none"
    softmax: Annotated[
        Literal["text", "joint"],
        _output(
            help="Softmax of the maps: text (over the text tokens only) or joint (over text and image tokens, as in "
            "the model itself; only models like FLUX attend to both at once).",
            metavar="HOW",
        ),
    ] = "text"
    batch: Annotated[int, _sampling(min=1, max=MAX_BATCH, help="Number of images processed at a time.")] = 16


@dataclass(frozen=True)
class TrainSettings(Checked):
    """How a classifier is trained: the settings that the command line has."""

    epochs: Annotated[int, _training(min=1, max=1_000_000, help="Number of epochs at most.")] = 100
    batch: Annotated[int, _training(min=1, max=MAX_BATCH, help="Batch size.")] = 64
    rate: Annotated[float, _training(min=1e-12, max=10.0, help="Learning rate.")] = 1e-4
    patience: Annotated[
        int, _training(min=1, max=1_000_000, help="Stop after this many epochs without improvement.")
    ] = 10
    seed: Annotated[int, _training(min=0, max=MAX_TRAIN_SEED, help="Random seed.")] = 0
    prompts: Annotated[
        Literal["both", "true", "balanced"],
        _training(
            help="Which maps are used: true (of prompts with the true relation), both (also of prompts with a wrong "
            "one) or balanced (both, weighted so that the prompt's word says nothing about the true relation).",
            metavar="both|true|balanced",
        ),
    ] = "both"
    augment: Annotated[bool, _training(help="Also train on swapped objects and mirrored maps.")] = True
    width: Annotated[int, _training(min=4, max=4096, help="Width of the network; 256 in the paper.")] = 96
    dropout: Annotated[float, _training(min=0.0, max=0.9, help="Dropout rate; 0.3 in the paper.")] = 0.1
