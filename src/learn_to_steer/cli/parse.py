"""``parse``: the relations that a prompt asks for."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from learn_to_steer.cli import options


def parse(
    prompt: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    nlp: Annotated[
        str | None,
        typer.Option(help="Let this spaCy model find the objects (extra: nlp).", show_default=False, metavar="MODEL"),
    ] = None,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Show the spatial relations that a prompt asks for. No model is needed."""
    from learn_to_steer import prompts

    relations = prompts.parse(prompt, nlp=prompts.load_nlp(nlp) if nlp else None)
    if as_json:
        print(json.dumps({"relations": [relation.as_list() for relation in relations]}, ensure_ascii=False))
    elif relations:
        for relation in relations:
            print(" | ".join(relation.as_list()))
    else:
        print("no spatial relation found")
