"""Open what ``collect`` needs, in this process or in that of a worker."""

from __future__ import annotations

from typing import Any

from learn_to_steer import collection
from learn_to_steer.cli.commands import copy_fields
from learn_to_steer.evaluation.model import open_pipeline
from learn_to_steer.families import find


def open_collection(options: Any, source: str, inversion: str) -> tuple[Any, collection.CollectConfig]:
    """Load the pipeline, and fill in what it decides.

    Args:
        options: The settings of ``collect``, a ``CollectOptions``.
        source: The name of the source.
        inversion: The name of the inversion.

    Returns:
        The pipeline and what to collect.

    Raises:
        SteerError: As ``load_pipeline``, or the noise levels cannot be read.
    """
    pipe, variant = open_pipeline(options)
    levels: tuple[float, ...] | None
    if options.levels == "official":
        levels = collection.trained_noise_levels(pipe, find(pipe), variant)
    else:
        levels = None if options.levels is None else collection.parse_noise_levels(options.levels)
    guidance = variant.guidance if options.guidance is None else options.guidance
    config = copy_fields(
        collection.CollectConfig,
        options,
        source=source,
        inversion=inversion,
        inversion_settings=options.settings,
        side=options.side or variant.resolution,
        levels=levels or variant.levels,
        arguments={**variant.arguments, variant.guidance_argument: guidance},
    )
    return pipe, config
