"""``collect``, ``train``, ``import-official`` and ``push``: how a classifier comes about, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from learn_to_steer.cli.commands import shared
from learn_to_steer.configs import CollectSettings, Named, PlacementConfig, TrainSettings


@dataclass(frozen=True, kw_only=True)
class CollectOptions(PlacementConfig, CollectSettings):
    """A collection, as far as it is known before the model is loaded."""

    out: Annotated[str, typer.Option(help="Folder of the maps.", metavar="DIR", rich_help_panel="Output")]
    settings: Annotated[
        Mapping[str, Any],
        Named("setting"),
        typer.Option(
            "--set", help="Change one setting of the inversion.", metavar="NAME=VALUE", rich_help_panel="Sampling"
        ),
    ] = field(default_factory=dict)
    side: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Height and width of the images, in pixels.",
            show_default="the model's own",
            rich_help_panel="Sampling",
        ),
    ] = None
    levels: Annotated[
        str | None,
        typer.Option(
            help="Noise levels between 0 and 1, as '0.9,0.7', or 'official': those of the authors' training.",
            metavar="LEVELS",
            show_default="the model's own",
            rich_help_panel="Sampling",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            help="For a model that takes guidance as an input, as FLUX.1-dev.",
            show_default="the model's own",
            rich_help_panel="Sampling",
        ),
    ] = None


def collect(options: CollectOptions) -> None:
    """Collect attention maps of labelled images, each under a true and a wrong prompt.

    Started again with the same settings, it goes on where it stopped.
    """
    # These import torch.
    import logging
    import sys
    from dataclasses import asdict
    from inspect import signature

    from learn_to_steer import collection, registry, storage
    from learn_to_steer.evaluation.model import open_pipeline
    from learn_to_steer.families import find, usual_source
    from learn_to_steer.sources import SourceRequest

    levels = None if options.levels in (None, "official") else collection.parse_noise_levels(options.levels)
    # Mistakes that cost nothing to find are found before a model is loaded.
    storage.check_folder(options.out)
    excluded = collection.benchmark_pairs() if options.exclude_benchmarks else frozenset()
    name = options.source or usual_source(options.model)
    source = registry.load("sources", name)
    source.images(SourceRequest(options.limit, options.seed, 64, options.diagonals, options.data, excluded))
    invert = registry.load("inversion", options.inversion).invert
    known = [name for name in signature(invert).parameters if name not in ("task", "observe", "limit")]
    for name in options.settings:
        if name not in known:
            raise registry.unknown(f"setting of {options.inversion}", name, known)
    pipe, variant = open_pipeline(options)
    if options.levels == "official":
        levels = collection.trained_noise_levels(pipe, find(pipe), variant)
    guidance = variant.guidance if options.guidance is None else options.guidance
    config = shared(
        collection.CollectConfig,
        options,
        source=name,
        inversion_settings=options.settings,
        side=options.side or variant.resolution,
        levels=levels or variant.levels,
        arguments={**variant.arguments, "guidance_scale": guidance},
    )
    logging.getLogger("learn_to_steer.collection").setLevel(logging.INFO)  # what it will take
    manifest = collection.collect(pipe, options.out, config)
    storage.write_json(Path(options.out) / "config.json", asdict(config))
    for reason, case in manifest.skipped.items():
        print(f"left out: {reason}: {case['count']} (e.g. {case['examples'][0]})", file=sys.stderr)
    rows = ", ".join(f"{split} {count}" for split, count in manifest.counts["rows"].items())
    print(f"Collected {rows} rows of {len(manifest.classes)} classes into {options.out}")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainSettings):
    """A training, where its maps are and where its classifier goes."""

    data: Annotated[str, typer.Option(help="Folder that 'collect' wrote.", metavar="DIR")]
    out: Annotated[str, typer.Option(help="Folder of the classifier.", metavar="DIR", rich_help_panel="Output")]


def train(options: TrainOptions) -> None:
    """Train a relation classifier on collected maps; the best weights are kept.

    Writes relation_classifier.safetensors and metrics.json: accuracy by noise level and relation, and how much of it
    comes from the prompt's words. Started again after a stop, it goes on.
    """
    # These import torch.
    from dataclasses import asdict

    from learn_to_steer import storage, training

    config = shared(training.TrainConfig, options)
    path = training.train(options.data, options.out, config)
    storage.write_json(Path(options.out) / "config.json", {"data": options.data} | asdict(config))
    print(f"Trained: {path}")
    print(f"Use it with --classifier {options.out}")


def import_official(
    file: Annotated[Path, typer.Argument(help="A .pth file of the authors.", show_default=False)],
    model: Annotated[str, typer.Option(help="The model it was trained on: sd:1.4, sd:2.1, flux:schnell or flux:dev.")],
    out: Annotated[str, typer.Option(help="Folder of the classifier.", metavar="DIR")],
) -> None:
    """Convert a classifier of the paper's authors. It is read as plain tensors: no code in it is run.

    The file does not say which model it was trained on, so --model must. Use the result with --classifier DIR
    --profile official.
    """
    from learn_to_steer import classifier
    from learn_to_steer.loading import hub_source, named_variant, skeleton

    family, denoiser = skeleton(model)
    variant = named_variant(model)
    data = {"model": model, "base_model": hub_source(model)}
    path = classifier.import_official(file, family.layout(denoiser), out, variant.steps if variant else None, data)
    found = classifier.load(path)
    print(f"Imported: {path}")
    print(f"Classes: {', '.join(found.config.classes)}; reads {family.layout(denoiser).channels} maps of {model}")


def push(
    folder: Annotated[str, typer.Argument(help="Folder of a classifier.", metavar="DIR")],
    repository: Annotated[str, typer.Argument(help="Where to: owner/name on the hub.", metavar="ID")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    license: Annotated[
        str | None, typer.Option(help="Licence of the weights for the model card, e.g. apache-2.0.", metavar="ID")
    ] = None,
) -> None:
    """Upload a classifier and its model card to the Hugging Face hub (log in with 'hf auth login' first).

    Anyone can then steer with it: --classifier owner/name.
    """
    from learn_to_steer.classifier import push_to_hub

    print(f"Uploaded to {push_to_hub(folder, repository, private=private, license=license)}")
