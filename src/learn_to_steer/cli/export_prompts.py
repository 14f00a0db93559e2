"""``export-prompts``: the benchmarks' prompts as files."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_to_steer import catalog
from learn_to_steer.cli import options


def export_prompts(
    out: Annotated[str, typer.Option(help="Folder of the files.", metavar="DIR")],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this one; may be repeated. See: list benchmarks.",
            metavar="NAME",
            show_default="all; those that read a file with --data only",
        ),
    ] = None,
    data: options.Data = None,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Write the benchmarks' prompts, in one wording of the relations, with what each asks for.

    Each becomes NAME.jsonl and NAME.txt, the prompts alone. evaluate --prompts reads
    the former, where all prompts have a relation. No model is needed.
    """
    from learn_to_steer import benchmarks

    names = benchmark or [
        name for name in benchmarks.benchmark_names() if data is not None or not benchmarks.reads(name)
    ]
    sets = {
        catalog.normal(name): benchmarks.prompts(name, data=data if benchmarks.reads(name) else None) for name in names
    }
    for name, facts in benchmarks.export(sets, out).items():
        print(f"{name}: {facts['prompts']} prompts")
    print(f"Written to {out}")
