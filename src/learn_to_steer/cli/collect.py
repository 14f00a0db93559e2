"""``collect``: attention maps of labelled pictures, to train a classifier on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from learn_to_steer.cli import options
from learn_to_steer.cli.model_options import general, placed, taking


@taking(placed, general)
def collect(
    out: Annotated[str, typer.Option(help="Folder of the maps.", metavar="DIR")],
    source: Annotated[
        str | None,
        typer.Option(
            help="Where labelled pictures come from. See: list sources.", metavar="NAME", show_default="the model's own"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="The file that lists a source's pictures (docs/data.md).", metavar="FILE", show_default=False
        ),
    ] = None,
    exclude_benchmarks: Annotated[
        bool, typer.Option("--exclude-benchmarks", help="Leave out pairs of objects that benchmarks ask for.")
    ] = False,
    inversion: Annotated[str, typer.Option(help="From picture to noise. See: list inversions.")] = "noise",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one setting of the inversion.", metavar="NAME=VALUE", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pictures and noise.")] = 0,
    diagonals: Annotated[bool, typer.Option("--diagonals", help="The four diagonals are relations too.")] = False,
    quality: Annotated[
        float | None,
        typer.Option(help="The worst inversion that is kept.", show_default="the inversion's own"),
    ] = None,
    reduce: Annotated[
        str,
        typer.Option(help="Keep every head's map ('none'), or means: 'layer-mean', 'mean'.", metavar="HOW"),
    ] = "none",
    softmax: Annotated[
        str,
        typer.Option(
            help="'text' compares text columns alone, 'joint' also the picture's, where a model attends to both.",
            metavar="HOW",
        ),
    ] = "text",
    side: Annotated[
        int | None,
        typer.Option(min=8, help="Of the pictures, in pixels.", show_default="the model's own"),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Noise levels between 0 and 1, as '0.9,0.7', or 'official': those of the authors' training.",
            metavar="LEVELS",
            show_default="the model's own",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Of a model with guidance as an input, as FLUX.1-dev.", show_default="the model's own"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 16,
    *,
    chosen: dict[str, Any],
) -> None:
    """Collect attention maps of labelled pictures, each under a true and a wrong prompt.

    Started again with the same settings, it goes on where it stopped.
    """
    # torch comes in here.
    import logging
    import sys
    from dataclasses import asdict
    from inspect import signature
    from pathlib import Path

    from learn_to_steer import catalog, storage
    from learn_to_steer import dataset as room
    from learn_to_steer.evaluation.model import ModelConfig, open_pipeline
    from learn_to_steer.families import find
    from learn_to_steer.maps import REDUCTIONS, SOFTMAXES

    if reduce not in REDUCTIONS:
        raise catalog.unknown("reduce", reduce, REDUCTIONS)
    if softmax not in SOFTMAXES:
        raise catalog.unknown("softmax", softmax, SOFTMAXES)
    named = None if levels in (None, "official") else room.parsed(levels)
    # Cheap mistakes are found before any model is loaded.
    storage.check_folder(out)
    source = source or _usual_source(chosen["model"])
    pairs = room.benchmark_pairs() if exclude_benchmarks else frozenset()
    catalog.load("sources", source).pictures(limit, seed, 64, diagonals=diagonals, data=data, exclude=pairs)
    way = catalog.load("inversion", inversion).invert
    given = options.settings(setting)
    known = [name for name in signature(way).parameters if name not in ("task", "observe", "limit")]
    for name in given:
        if name not in known:
            raise catalog.unknown(f"setting of {inversion}", name, known)
    pipe, variant = open_pipeline(ModelConfig(**chosen))
    if levels == "official":
        named = room.trained_levels(pipe, find(pipe), variant)
    config = room.CollectConfig(
        model=chosen["model"],
        source=source,
        data=data,
        exclude_benchmarks=exclude_benchmarks,
        inversion=inversion,
        inversion_settings=given,
        limit=limit,
        side=side or variant.side,
        levels=named or variant.levels,
        seed=seed,
        diagonals=diagonals,
        quality=quality,
        reduce=reduce,
        batch=batch,
        softmax=softmax,
        arguments={**variant.arguments, "guidance_scale": variant.guidance if guidance is None else guidance},
    )
    logging.getLogger("learn_to_steer.dataset").setLevel(logging.INFO)  # what it will take
    manifest = room.collect(pipe, out, config)
    storage.write_json(Path(out) / "config.json", asdict(config))
    for reason, case in manifest.skipped.items():
        print(f"left out: {reason}: {case['count']} (e.g. {case['examples'][0]})", file=sys.stderr)
    rows = ", ".join(f"{split} {count}" for split, count in manifest.counts["rows"].items())
    print(f"Collected {rows} rows of {len(manifest.classes)} classes into {out}")


def _usual_source(model: str) -> str:
    """The source of labelled pictures for a model: its variant's, else the default model's."""
    from learn_to_steer.errors import DataError
    from learn_to_steer.families import variants
    from learn_to_steer.registry import DEFAULT_MODEL

    known = variants()
    for variant in (known.get(model.partition("=")[0]), known.get(DEFAULT_MODEL)):
        if variant and variant.picture_source:
            return variant.picture_source
    raise DataError(f"name a --source of labelled pictures for {model} (see: list sources)")
