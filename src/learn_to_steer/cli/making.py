"""The verbs that make and publish a classifier: ``collect``, ``train``, ``import-official`` and ``push``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from learn_to_steer.cli.commands import copy_fields
from learn_to_steer.cli.console import show
from learn_to_steer.configs import CollectSettings, OptionName, TrainSettings
from learn_to_steer.distributed import check_options
from learn_to_steer.errors import DataError
from learn_to_steer.model_options import PlacementConfig
from learn_to_steer.shared_options import MAX_GUIDANCE, MAX_LIMIT, MAX_SIDE, MODELS_OWN
from learn_to_steer.worker_options import WorkersConfig


@dataclass(frozen=True, kw_only=True)
class CollectOptions(WorkersConfig, PlacementConfig, CollectSettings):
    """The settings of ``collect``; None stands for what the model decides once it is loaded."""

    out: Annotated[str, typer.Option(help="Folder to write the maps to.", metavar="DIR", rich_help_panel="Output")]
    settings: Annotated[
        Mapping[str, Any],
        OptionName("setting"),
        typer.Option(
            "--set",
            help="Change one setting of the inversion. May be repeated.",
            show_default="the inversion's own",
            metavar="NAME=VALUE",
            rich_help_panel="Sampling",
        ),
    ] = field(default_factory=dict)
    side: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=MAX_SIDE,
            help="Height and width of the images, in pixels.",
            show_default="the model's own",
            rich_help_panel="Sampling",
        ),
    ] = None
    levels: Annotated[
        str | None,
        typer.Option(
            help="Noise levels from 0 to 1 at which maps are collected, e.g. 0.9,0.7; official: those of the authors.",
            metavar="LEVELS",
            show_default="the model's own",
            rich_help_panel="Sampling",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=MAX_GUIDANCE,
            help="Guidance scale of a model that takes it as an input, as FLUX.1-dev does.",
            show_default="the model's own",
            rich_help_panel="Sampling",
        ),
    ] = None


def collect(options: CollectOptions) -> None:
    """Collect attention maps of labelled images, to train a classifier on.

    Each image is paired with a prompt that names the true relation and with one that names a wrong relation. If it is
    stopped, run the same command again: it goes on where it stopped.
    """
    has_workers = check_options(options, options.device)  # before torch is imported, which takes long
    # These import torch.
    import logging
    import sys
    from dataclasses import asdict
    from inspect import signature

    from learn_to_steer import collection, registry, storage
    from learn_to_steer.cli.collecting import open_collection
    from learn_to_steer.distributed import open_workers
    from learn_to_steer.families import usual_source
    from learn_to_steer.sources import SourceRequest

    # Check what can be checked before the model is loaded, which takes long.
    if options.levels not in (None, "official"):
        collection.parse_noise_levels(options.levels)
    storage.check_folder(options.out)
    excluded = collection.benchmark_pairs() if options.exclude_benchmarks else frozenset()
    name = options.source or usual_source(options.model)
    source = registry.load("sources", name)
    collection.check_source(source, options)
    inversion = options.inversion or (collection.PATH if hasattr(source, "planned") else "noise")
    if inversion != collection.PATH:
        source.images(SourceRequest(options.limit, options.seed, 64, options.diagonals, options.data, excluded))
    invert = registry.load("inversion", inversion).invert
    allowed = [name for name in signature(invert).parameters if name not in ("task", "observe", "limit")]
    for setting in options.settings:
        if setting not in allowed:
            raise registry.unknown(f"setting of {inversion}", setting, allowed)
    logging.getLogger("learn_to_steer.collection").setLevel(logging.INFO)  # logs how long it will take
    opened = partial(open_collection, options.in_process(), name, inversion)
    if has_workers:
        arguments = (opened, options.out)
        with open_workers(options, collection.CollectionWorker, *arguments, device=options.device) as pool:
            manifest, config = collection.collect_on(pool, options.out)
    else:
        pipe, config = opened()
        manifest = collection.collect(pipe, options.out, config)
    storage.write_json(Path(options.out) / "config.json", asdict(config))
    for reason, case in manifest.skipped.items():
        show(f"left out: {reason}: {case['count']} (e.g. {case['examples'][0]})", sys.stderr)
    rows = ", ".join(f"{split} {count}" for split, count in manifest.counts["rows"].items())
    show(f"Collected {rows} rows of {len(manifest.classes)} classes into {options.out}")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainSettings):
    """The settings of ``train``."""

    depth: Annotated[
        str | None,
        typer.Option(
            help="Read only this many layers, those that the denoiser runs first: passes end after them. With auto, "
            "classifiers of several depths are trained, and the smallest depth is chosen that is about as accurate as "
            "the best.",
            show_default="all layers",
            metavar="NUMBER|auto",
            rich_help_panel="Training",
        ),
    ] = None
    confirm: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_LIMIT,
            help="With --depth auto: steer this many validation prompts with the chosen depth and with all layers, and "
            "take a deeper one if it is worse.",
            show_default="not steered",
            rich_help_panel="Training",
        ),
    ] = None
    detector: Annotated[
        str | None,
        typer.Option(
            help="With --confirm: the detector that scores the images (see: list detectors).",
            metavar="NAME[:SOURCE]",
            show_default=MODELS_OWN,
            rich_help_panel="Training",
        ),
    ] = None
    data: Annotated[str, typer.Option(help="Folder of maps that collect wrote.", metavar="DIR")]
    out: Annotated[
        str, typer.Option(help="Folder to write the classifier to.", metavar="DIR", rich_help_panel="Output")
    ]


def train(options: TrainOptions) -> None:
    """Train a relation classifier on the maps that collect wrote. The best weights are kept.

    Writes into --out: relation_classifier.safetensors, and metrics.json with the accuracy by noise level and relation
    and how much the classifier relies on the prompt's words; with --depth auto also a folder for every depth that was
    tried. If it is stopped, run the same command again: it goes on where it stopped. With 'accelerate launch' it runs
    in several processes, each with so many rows of a batch.
    """
    # These import torch.
    import logging
    from dataclasses import asdict

    from learn_to_steer import storage, training
    from learn_to_steer.collection import Manifest
    from learn_to_steer.evaluation.validation_prompts import steering_trial

    depth = options.depth or ""
    is_number = depth.isascii() and depth.isdigit() and len(depth) < 9
    config = copy_fields(training.TrainConfig, options, depth=int(depth) if is_number else options.depth)
    steer = None
    if options.detector is not None and options.confirm is None:
        raise DataError("--detector scores the images of --confirm; give --confirm, too, or leave --detector out")
    if options.confirm is not None:
        if config.depth != "auto":
            raise DataError("--confirm confirms a depth that was chosen; give --depth auto, too")
        settings = Manifest.read(Path(options.data)).settings
        steer = steering_trial(settings, options.confirm, options.detector)
    logging.getLogger("learn_to_steer.training").setLevel(logging.INFO)  # logs which depth is chosen
    path = training.train(options.data, options.out, config, steer=steer)
    if not training.ProcessGroup().is_first:
        return
    storage.write_json(Path(options.out) / "config.json", {"data": options.data} | asdict(config))
    show(f"Trained: {path}")
    show(f"Use it with --classifier {options.out}")


def import_official(
    file: Annotated[Path, typer.Argument(help="A .pth file that the authors published.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            help="The model that it was trained on: sd:1.4, sd:2.1, flux:schnell or flux:dev.", metavar="MODEL"
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder to write the classifier to.", metavar="DIR")],
) -> None:
    """Convert a classifier that the paper's authors published.

    The file does not say which model it was trained on, so --model is needed. Only tensors are read from it: no code
    in it is run. Use the result with --classifier DIR --profile official.
    """
    from learn_to_steer import classifier
    from learn_to_steer.loading import skeleton
    from learn_to_steer.model_names import hub_source, named_variant

    family, denoiser = skeleton(model)
    variant = named_variant(model)
    data = {"model": model, "base_model": hub_source(model)}
    path = classifier.import_official(file, family.layout(denoiser), out, variant.steps if variant else None, data)
    loaded = classifier.load(path)
    show(f"Imported: {path}")
    show(f"Classes: {', '.join(loaded.config.classes)}; reads {family.layout(denoiser).channels} maps of {model}")


def push(
    folder: Annotated[str, typer.Argument(help="Folder of a classifier.", metavar="DIR")],
    repository: Annotated[str, typer.Argument(help="Repository to upload to: owner/name.", metavar="ID")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    license: Annotated[
        str | None,
        typer.Option(
            help="Licence of the weights, for the model card, e.g. apache-2.0.",
            show_default="none",
            metavar="ID",
        ),
    ] = None,
) -> None:
    """Upload a classifier and its model card to the Hugging Face hub.

    Log in first with 'hf auth login'. Anyone can then steer with --classifier owner/name.
    """
    from learn_to_steer.classifier import push_to_hub

    show(f"Uploaded to {push_to_hub(folder, repository, private=private, license=license)}")
