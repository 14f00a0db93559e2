"""The settings of the verb ``fit``. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from typer import Option

from learn_to_steer.model_options import PipelineConfig
from learn_to_steer.shared_options import (
    MAX_BATCH,
    MAX_GUIDANCE,
    MAX_LIMIT,
    MAX_SIDE,
    MAX_STEPS,
    MAX_TRAIN_SEED,
    MODELS_OWN,
    Contrast,
    Detectors,
    Objects,
)
from learn_to_steer.worker_options import WorkersConfig

_images = partial(Option, rich_help_panel="Images")
_sampling = partial(Option, rich_help_panel="Sampling")
_training = partial(Option, rich_help_panel="Training")
_output = partial(Option, rich_help_panel="Output")

# Settings that may differ when the same run goes on. Other batches change pixels by rounding; with more epochs or
# another trial, it ends like a run that began with these.
FREE = ("out", "device", "offload", "batch", "epochs", "trial")


@dataclass(frozen=True, kw_only=True)
class FitConfig(WorkersConfig, PipelineConfig):
    """A model, what it draws to learn from, and how the classifier is tried."""

    limit: Annotated[
        int,
        _images(
            min=0,
            max=MAX_LIMIT,
            help="Number of images that the model draws; 0: draw nothing and explain what would be done.",
        ),
    ] = 1000
    objects: Objects = None
    detectors: Detectors = None
    contrast: Contrast = None
    side: Annotated[
        int | None,
        _sampling(min=8, max=MAX_SIDE, help="Height and width of the images, in pixels.", show_default=MODELS_OWN),
    ] = None
    steps: Annotated[int | None, _sampling(min=1, max=MAX_STEPS, help="Denoising steps.", show_default=MODELS_OWN)] = (
        None
    )
    guidance: Annotated[
        float | None, _sampling(min=0.0, max=MAX_GUIDANCE, help="Guidance scale.", show_default=MODELS_OWN)
    ] = None
    batch: Annotated[
        int | None,
        _sampling(
            min=1, max=MAX_BATCH, help="Number of images drawn at a time.", show_default="as many as memory allows"
        ),
    ] = None
    seed: Annotated[int, _sampling(min=0, max=MAX_TRAIN_SEED, help="Random seed of prompts, noise and training.")] = 0
    epochs: Annotated[
        int, _training(min=1, max=1_000_000, help="Number of epochs at most, for each of the depths that are tried.")
    ] = 30
    trial: Annotated[
        int,
        _training(
            min=0,
            max=MAX_LIMIT,
            help="Number of prompts at most that are drawn with and without steering in the end; 0: no trial.",
        ),
    ] = 48
    out: Annotated[str, _output(help="Folder to write to.", metavar="DIR")]

    def decisive(self) -> dict[str, Any]:
        """Return the settings that the classifier depends on."""
        return {name: value for name, value in self.written().items() if name not in FREE}
