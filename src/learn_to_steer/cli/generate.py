"""``generate``: pictures of prompts, as the model draws them and steered."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from learn_to_steer.cli import options
from learn_to_steer.cli.console import progress
from learn_to_steer.cli.model_options import general, placed, sampled, taking


@taking(placed, sampled, general)
def generate(
    prompt: options.Prompts = None,
    seed: Annotated[int, typer.Option(min=0, help="Noise depends on seed, prompt and image number only.")] = 0,
    images: Annotated[int, typer.Option(min=1, help="Images of each prompt.")] = 1,
    out: Annotated[str, typer.Option(help="Folder of the pictures.", metavar="DIR")] = "out/generate",
    steer: Annotated[bool, typer.Option("--steer/--no-steer", help="Make the steered pictures too.")] = True,
    objective: options.Objective = "learned",
    relation: Annotated[
        list[str] | None,
        typer.Option(
            help='Steer to this instead of what the prompt says, e.g. "dog | left of | cat"; may be repeated.',
            metavar="'A | PREDICATE | B'",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A prompt without a relation is an error.")] = False,
    nlp: Annotated[
        str | None,
        typer.Option(help="Let this spaCy model find the objects (extra: nlp).", show_default=False, metavar="MODEL"),
    ] = None,
    *,
    chosen: dict[str, Any],
) -> None:
    """Make pictures of prompts, as the model draws them and steered, from the same noise.

    Writes base-PP-II.png, steered-PP-II.png, compare.png (side by side),
    maps.png (where the words look) and report.json into --out.
    """
    # torch comes in here.
    from learn_to_steer.cli.pictures import GenerateConfig, make_pictures

    config = GenerateConfig(
        prompts=tuple(prompt or ()),
        relations=tuple(relation or ()),
        strict=strict,
        nlp=nlp,
        seed=seed,
        images=images,
        out=out,
        objective=objective if steer else "none",
        **chosen,
    )
    with progress("drawing", "steps") as advance:
        lines = make_pictures(config, advance)
    print("\n".join(lines))
