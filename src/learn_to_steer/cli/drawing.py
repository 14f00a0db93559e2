"""``generate``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from typer import Option

from learn_to_steer.cli.commands import shared
from learn_to_steer.cli.console import progress
from learn_to_steer.configs import GenerateConfig


@dataclass(frozen=True)
class GenerateOptions(GenerateConfig):
    """What ``generate`` draws, and whether it steers."""

    steer: Annotated[
        bool, Option("--steer/--no-steer", help="Make the steered images too.", rich_help_panel="Steering")
    ] = True


def generate(options: GenerateOptions) -> None:
    """Make images of prompts, as the model draws them and steered, from the same noise.

    Writes base-PP-II.png, steered-PP-II.png, compare.png (side by side), maps.png (attention maps of the objects),
    config.json and report.json into --out.
    """
    # This imports torch.
    from learn_to_steer.cli.pictures import make_pictures

    config = shared(GenerateConfig, options)
    if not options.steer:
        config = replace(config, objective="none")
    with progress("drawing", "steps") as advance:
        lines = make_pictures(config, advance)
    print("\n".join(lines))
