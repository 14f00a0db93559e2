"""The verb ``generate``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from typer import Option

from learn_to_steer.cli.commands import copy_fields
from learn_to_steer.cli.console import progress, show
from learn_to_steer.configs import GenerateConfig
from learn_to_steer.distributed import check_options


@dataclass(frozen=True)
class GenerateOptions(GenerateConfig):
    """The settings of ``generate``, and whether it steers."""

    steer: Annotated[
        bool,
        Option(
            "--steer/--no-steer",
            help="Make the steered images, too, or only the base images.",
            rich_help_panel="Steering",
        ),
    ] = True


def generate(options: GenerateOptions) -> None:
    """Make images of prompts, with and without steering, from the same noise.

    Writes into --out: base-PP-II.png and steered-PP-II.png (image II of prompt PP, without and with steering),
    compare.png (both side by side), maps.png (attention maps of the objects), config.json and report.json.
    """
    check_options(options, options.device)  # before torch is imported, which takes long
    # This imports torch.
    from learn_to_steer.cli.image_generation import generate_images

    config = copy_fields(GenerateConfig, options)
    if not options.steer:
        config = replace(config, objective="none")
    with progress("generating", "steps", config) as advance:
        lines = generate_images(config, advance)
    for line in lines:
        show(line)
