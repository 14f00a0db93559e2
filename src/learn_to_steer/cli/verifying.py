"""The verb ``verify``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from learn_to_steer.cli.console import show
from learn_to_steer.errors import DataError


def verify(
    folder: Annotated[
        str, typer.Argument(help="Folder that collect, train, evaluate, score or generate wrote.", metavar="DIR")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of text.")] = False,
) -> None:
    """Check that the files in a folder are whole: structure, types, hashes, counts, images.

    Shows the state of every part and, for a damaged one, how to mend it. If something is damaged or missing, it ends
    with exit code 2. Nothing is changed, and no model is loaded.
    """
    # This imports torch.
    from learn_to_steer import verification

    result = verification.verify(folder)
    if as_json:
        parts = [{"part": one.part, "note": one.note, "problem": one.problem or None} for one in result.findings]
        show(json.dumps({"kind": result.kind, "whole": not result.problems, "parts": parts}, ensure_ascii=False))
    else:
        show(f"{folder}: {result.kind}")
        for one in result.findings:
            show(f"damaged  {one.part}: {one.problem}" if one.problem else f"ok       {one.part}: {one.note}")
    if result.problems:
        count, total = len(result.problems), len(result.findings)
        raise DataError(f"{folder}: {count} of {total} parts are damaged or missing: {result.problems[0].part}")
