"""What can be set: one frozen config for each thing that the package does, with every setting declared once.

A field whose type is annotated with ``Option`` or ``Argument`` is an option of the command line, too: its help text,
limits and default are the ones written here (``cli.commands`` makes the options). ``None`` stands for the model's own
value. This module imports neither torch nor diffusers, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Annotated, Any, Literal

from typer import Argument, Option

from learn_to_steer.registry import DEFAULT_MODEL

# The groups in which --help shows the options.
_model = partial(Option, rich_help_panel="Model")
_sampling = partial(Option, rich_help_panel="Sampling")
_steering = partial(Option, rich_help_panel="Steering")
_benchmark = partial(Option, rich_help_panel="Benchmark")
_images = partial(Option, rich_help_panel="Images")
_training = partial(Option, rich_help_panel="Training")
_output = partial(Option, rich_help_panel="Output")
_OWN = "the model's own"

# Options that mean the same in several configs.
Data = Annotated[
    str | None, _benchmark(help="The file that a benchmark reads (docs/benchmarks.md), or 'download'.", metavar="FILE")
]
Detector = Annotated[
    str | None,
    _benchmark(
        help="Detector that finds the objects (see: list detectors); add ':' and a folder or hub id for other weights.",
        metavar="NAME[:SOURCE]",
        show_default=_OWN,
    ),
]
Against = Annotated[
    str | None,
    _benchmark(help="Another evaluation or scoring: report the difference on the same prompts.", metavar="DIR"),
]
Similarity = Annotated[
    str | None,
    _benchmark(
        help="Also compare the images of the two: an embedder (see: list embedders), a DINO or CLIP folder or hub id.",
        metavar="NAME",
    ),
]


@dataclass(frozen=True)
class Named:
    """The name of an option where it is not the name of its field."""

    name: str


@dataclass(frozen=True)
class PlacementConfig:
    """Which model is loaded, and how its weights are held."""

    model: Annotated[
        str, _model(help="A variant (see: list models), a local folder in diffusers' format, or a hub id.")
    ] = DEFAULT_MODEL
    revision: Annotated[
        str | None, _model(help="Branch, tag or commit of a hub id.", show_default="main", metavar="NAME")
    ] = None
    lora: Annotated[
        tuple[str, ...], _model(help="Add a LoRA adapter (extra: lora); may be repeated.", metavar="PATH[:SCALE]")
    ] = ()
    device: Annotated[
        str, _model(help="cpu, cuda, cuda:1, ...; 'auto' is the GPU if there is one.", metavar="NAME")
    ] = "auto"
    dtype: Annotated[
        str | None,
        _model(
            help="bfloat16, float16 or float32.", show_default="the model's own; float32 on the CPU", metavar="NAME"
        ),
    ] = None
    offload: Annotated[
        str | None, _model(help="'model': only the part that is running is on the GPU.", metavar="HOW")
    ] = None
    quantize: Annotated[str | None, _model(help="'8bit' or '4bit' weights (extra: quant).", metavar="BITS")] = None


@dataclass(frozen=True)
class PipelineConfig(PlacementConfig):
    """A model with its scheduler."""

    scheduler: Annotated[
        str | None,
        _sampling(help="Replace the scheduler (see: list schedulers).", show_default=_OWN, metavar="CLASS"),
    ] = None


@dataclass(frozen=True)
class ModelConfig(PipelineConfig):
    """A model, how it is sampled, and how it is steered."""

    steps: Annotated[int | None, _sampling(min=1, help="Denoising steps.", show_default=_OWN)] = None
    guidance: Annotated[float | None, _sampling(help="Guidance scale.", show_default=_OWN)] = None
    height: Annotated[int | None, _sampling(min=8, help="Pixels.", show_default=_OWN)] = None
    width: Annotated[int | None, _sampling(min=8, help="Pixels.", show_default=_OWN)] = None
    objective: Annotated[
        str,
        _steering(
            "--loss",
            "--objective",
            help="Loss that steers: 'learned', a published one (see: list losses), or 'none' for the plain model.",
            metavar="NAME",
        ),
    ] = "learned"
    classifier: Annotated[
        str | None,
        _steering(help="Folder or hub id of a relation classifier.", show_default=_OWN, metavar="DIR"),
    ] = None
    profile: Annotated[
        str,
        _steering(
            help="Schedule of steering: 'default' (a published loss: as published), 'equal' (ours for every loss, "
            "never stopping early) or 'official' (the authors').",
            metavar="NAME",
        ),
    ] = "default"
    settings: Annotated[
        Mapping[str, Any],
        Named("setting"),
        _steering("--set", help="Change one steering setting; may be repeated.", metavar="NAME=VALUE"),
    ] = field(default_factory=dict)
    checkpointing: Annotated[
        str,
        _steering(
            help="Gradient checkpointing, less memory for more time: 'on', 'off', or 'auto' (when it is needed).",
            metavar="WHEN",
        ),
    ] = "auto"

    @property
    def rows(self) -> int:
        """Images of one pipeline call, which share the memory."""
        return 1


@dataclass(frozen=True)
class GenerateConfig(ModelConfig):
    """A model, its prompts, and how many images of each."""

    prompts: Annotated[tuple[str, ...], Named("prompt"), Argument(help="One or more prompts.", show_default=False)] = ()
    images: Annotated[int, _sampling(min=1, help="Images of each prompt.")] = 1
    seed: Annotated[int, _sampling(min=0, help="The noise depends on seed, prompt and image number only.")] = 0
    relations: Annotated[
        tuple[str, ...],
        _steering(
            "--relation",
            help='Steer to this instead of what the prompt says, e.g. "dog | left of | cat"; may be repeated.',
            metavar="'A | PREDICATE | B'",
        ),
    ] = ()
    strict: Annotated[bool, _steering("--strict", help="A prompt without a relation is an error.")] = False
    nlp: Annotated[
        str | None, _steering(help="Let this spaCy model find the objects (extra: nlp).", metavar="MODEL")
    ] = None
    out: Annotated[str, _output(help="Folder of the images.", metavar="DIR")] = "out/generate"

    @property
    def rows(self) -> int:
        return self.images


# Settings that change neither an image nor its score, so that a folder may be completed with other ones. The file that
# a benchmark reads is checked by its hash instead of its place.
FREE = ("out", "data", "images", "limit", "batch", "device", "offload", "checkpointing", "against", "similarity")


@dataclass(frozen=True)
class EvaluateConfig(ModelConfig):
    """A model on a benchmark, or on the prompts of a file."""

    benchmark: Annotated[str | None, _benchmark(help="See: list benchmarks.", metavar="NAME")] = None
    prompts: Annotated[
        str | None,
        _benchmark(
            help="Your own prompts instead: lines with 'prompt' and, if you like, 'relations'.", metavar="FILE.jsonl"
        ),
    ] = None
    data: Data = None
    limit: Annotated[
        int | None,
        _benchmark(
            min=1,
            help="Only so many prompts: a seeded subset, every task and relation in its share.",
            show_default="all",
        ),
    ] = None
    detector: Detector = None
    verifier: Annotated[
        str | None,
        _steering(
            help="For the loss for-unified: a detector that checks each image. What it misses is drawn again, and the "
            "better image is kept.",
            metavar="NAME[:SOURCE]",
        ),
    ] = None
    images: Annotated[int, _sampling(min=1, help="Images of each prompt.")] = 4
    seed: Annotated[int, _sampling(min=0, help="The noise depends on seed, prompt and image number only.")] = 0
    batch: Annotated[int, _sampling(min=1, help="Images at a time.")] = 8
    against: Against = None
    similarity: Similarity = None
    out: Annotated[str, _output(help="Folder of the results.", metavar="DIR")] = "out/evaluate"

    @property
    def rows(self) -> int:
        return self.batch

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self) | {"lora": list(self.lora)}

    def decisive(self) -> dict[str, Any]:
        """Return the settings that an image or its score depends on."""
        values = asdict(self)
        return {one.name: values[one.name] for one in fields(self) if one.name not in FREE}


@dataclass(frozen=True)
class ScoreConfig:
    """Images that exist already, and what they should show."""

    pictures: Annotated[
        str,
        Argument(
            help="A folder that evaluate left, GenEval's layout, T2I-CompBench's file names, or a JSON-lines manifest.",
            metavar="DIR",
        ),
    ]
    benchmark: Annotated[
        str | None, _benchmark(help="See: list benchmarks.", metavar="NAME", show_default="the evaluation's own")
    ] = None
    prompts: Annotated[
        str | None, _benchmark(help="Your own prompts instead, as for evaluate.", metavar="FILE.jsonl")
    ] = None
    data: Data = None
    detector: Detector = None
    device: Annotated[str, _benchmark(help="Where the detector runs.", metavar="NAME")] = "cpu"
    images: Annotated[int | None, _benchmark(min=1, help="Images of each prompt.", show_default="all")] = None
    limit: Annotated[
        int | None, _benchmark(min=1, help="Only so many prompts, the subset of evaluate.", show_default="all")
    ] = None
    seed: Annotated[int, _benchmark(min=0, help="Seed of that subset.")] = 0
    against: Against = None
    similarity: Similarity = None
    out: Annotated[str, _output(help="Folder of the results.", metavar="DIR")] = "out/score"


@dataclass(frozen=True)
class CollectSettings:
    """Labelled images and how their attention maps are collected; what is decided by the model is not here."""

    model: str
    source: Annotated[
        str | None,
        _images(help="Where labelled images come from. See: list sources.", metavar="NAME", show_default=_OWN),
    ] = None
    data: Annotated[
        str | None, _images(help="The file that lists a source's images (docs/data.md).", metavar="FILE")
    ] = None
    exclude_benchmarks: Annotated[
        bool, _images("--exclude-benchmarks", help="Leave out pairs of objects that benchmarks ask for.")
    ] = False
    inversion: Annotated[str, _sampling(help="From image to noise. See: list inversions.")] = "noise"
    limit: Annotated[int, _images(min=1, help="Number of images.")] = 1500
    seed: Annotated[int, _images(min=0, help="Same seed, same images and noise.")] = 0
    diagonals: Annotated[bool, _images("--diagonals", help="The four diagonals are relations too.")] = False
    quality: Annotated[
        float | None, _sampling(help="The worst inversion that is kept.", show_default="the inversion's own")
    ] = None
    reduce: Annotated[
        Literal["none", "layer-mean", "mean"],
        _output(help="Keep every head's map ('none'), or means: 'layer-mean', 'mean'.", metavar="HOW"),
    ] = "none"
    softmax: Annotated[
        Literal["text", "joint"],
        _output(
            help="'text': the softmax is over text columns alone. 'joint': over the image's columns as well, where a "
            "model attends to both.",
            metavar="HOW",
        ),
    ] = "text"
    batch: Annotated[int, _sampling(min=1, help="Images at a time. Changes the speed only.")] = 16


@dataclass(frozen=True)
class TrainSettings:
    """How the classifier is trained, as far as the command line says."""

    epochs: Annotated[int, _training(min=1, help="At most; it stops early when nothing improves.")] = 100
    batch: Annotated[int, _training(min=1, help="Rows of a training step.")] = 64
    rate: Annotated[float, _training(min=0.0, help="Learning rate.")] = 1e-4
    patience: Annotated[int, _training(min=1, help="Epochs without improvement before it stops.")] = 10
    seed: Annotated[int, _training(min=0, help="Seed of the first weights, the order and the dropout.")] = 0
    prompts: Annotated[
        Literal["both", "true", "balanced"],
        _training(
            help="'true' leaves out prompts with a wrong word (to measure leakage); 'balanced' weighs both kinds so "
            "that the word says nothing about the relation.",
            metavar="both|true|balanced",
        ),
    ] = "both"
    augment: Annotated[bool, _training(help="Swap objects and mirror maps, and their labels.")] = True
    width: Annotated[int, _training(min=4, help="Width of the network (the paper's: 256).")] = 96
    dropout: Annotated[float, _training(min=0.0, max=0.9, help="Dropout (the paper's: 0.3).")] = 0.1
