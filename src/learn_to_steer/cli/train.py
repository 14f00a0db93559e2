"""``train``: the relation classifier."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from learn_to_steer.cli import options
from learn_to_steer.errors import DataError

PROMPTS = ("both", "true", "balanced")


def train(
    data: Annotated[str, typer.Option(help="Folder that 'collect' has written.", metavar="DIR")],
    out: Annotated[str, typer.Option(help="Folder of the classifier.", metavar="DIR")],
    epochs: Annotated[int, typer.Option(min=1, help="At most; it stops early when nothing improves.")] = 100,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a training step.")] = 64,
    rate: Annotated[float, typer.Option(min=0.0, help="Learning rate.")] = 1e-4,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without improvement before it stops.")] = 10,
    prompts: Annotated[
        str,
        typer.Option(
            help="'true' leaves wrong-word prompts out (to measure leakage); 'balanced' weighs both so that "
            "the word says nothing about the relation.",
            metavar="both|true|balanced",
        ),
    ] = "both",
    augment: Annotated[bool, typer.Option(help="Swap objects and mirror maps, labels with them.")] = True,
    width: Annotated[int, typer.Option(min=4, help="Width of the network (the paper's: 256).")] = 96,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Dropout (the paper's: 0.3).")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights, the order and the dropout.")] = 0,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Train a relation classifier on collected maps; the best weights are kept.

    Writes relation_classifier.safetensors and metrics.json: accuracy by noise
    level and relation, and how much the prompt's words leak.
    Started again after a stop, it goes on.
    """
    if prompts not in PROMPTS:
        raise DataError(f"--prompts is one of {', '.join(PROMPTS)}, not {prompts!r}")
    # torch comes in here.
    from dataclasses import asdict
    from pathlib import Path

    from learn_to_steer import storage
    from learn_to_steer import training as room

    chosen = room.TrainConfig(
        epochs=epochs,
        batch=batch,
        rate=rate,
        patience=patience,
        prompts=cast(Any, prompts),
        augment=augment,
        width=width,
        dropout=dropout,
        seed=seed,
    )
    path = room.train(data, out, chosen)
    storage.write_json(Path(out) / "config.json", {"data": data} | asdict(chosen))
    print(f"Trained: {path}")
    print(f"Use it with --classifier {out}")
