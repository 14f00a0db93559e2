"""The settings of the verb ``bench``. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from typer import Option

from learn_to_steer.configs import ModelConfig
from learn_to_steer.shared_options import MAX_BATCH, MAX_LIMIT, Seed

_measured = partial(Option, rich_help_panel="Measurement")


@dataclass(frozen=True)
class BenchConfig(ModelConfig):
    """A model, and how often it is timed with and without steering."""

    random: Annotated[
        bool,
        Option(
            "--random",
            help="Random weights, made from the model's config; nothing is downloaded for a named model. Also without "
            "this option, if MODEL is a folder of configs without weights.",
            rich_help_panel="Model",
        ),
    ] = False
    depth: Annotated[
        int | None,
        Option(
            min=1,
            max=1000,
            help="Steer by a random classifier that reads this many layers, those that the denoiser runs first.",
            show_default="the model's own classifier; without one a random classifier that reads a third of the layers",
            rich_help_panel="Steering",
        ),
    ] = None
    limit: Annotated[
        int,
        _measured(min=1, max=MAX_LIMIT, help="Number of prompts, taken from the benchmark geneval-position-val."),
    ] = 16
    repeats: Annotated[int, _measured(min=1, max=1000, help="How often each prompt is timed, without and with.")] = 1
    batch: Annotated[
        int, _measured(min=1, max=MAX_BATCH, help="Images of a call, beside one image a call; 1: only one a call.")
    ] = 8
    seed: Seed = 0

    @property
    def rows(self) -> int:
        return self.batch
