"""``import-official``: the authors' checkpoints as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from learn_to_steer.cli import options


def import_official(
    file: Annotated[Path, typer.Argument(help="A .pth file of the authors.", show_default=False)],
    model: Annotated[str, typer.Option(help="The model it was trained on: sd:1.4, sd:2.1, flux:schnell or flux:dev.")],
    out: Annotated[str, typer.Option(help="Folder of the classifier.", metavar="DIR")],
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Convert a classifier of the paper's authors; it is read as plain tensors, no code in it is run.

    The file does not say which model it was trained on, so --model must. Use
    the result with --classifier DIR --profile official.
    """
    from learn_to_steer import classifier
    from learn_to_steer.families._load import hub_source, named_variant, skeleton

    family, denoiser = skeleton(model)
    variant = named_variant(model)
    data = {"model": model, "base_model": hub_source(model)}
    path = classifier.import_official(file, family.layout(denoiser), out, variant.steps if variant else None, data)
    found = classifier.load(path)
    print(f"Imported: {path}")
    print(f"Classes: {', '.join(found.config.classes)}; reads {family.layout(denoiser).channels} maps of {model}")
