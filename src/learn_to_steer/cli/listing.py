"""``list``: the names that options understand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from learn_to_steer import catalog
from learn_to_steer.cli import options
from learn_to_steer.errors import DataError


def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="models, benchmarks, objectives, profiles, detectors, sources, inversions, embedders or schedulers.",
            show_default=False,
        ),
    ],
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """List the names of one kind: models, benchmarks, objectives, ..."""
    kinds: dict[str, Callable[[], list[str]]] = {
        "models": _models,
        "benchmarks": _benchmarks,
        "objectives": lambda: ["none", *catalog.names("objectives")],
        "detectors": lambda: catalog.names("detectors"),
        "sources": lambda: catalog.names("sources"),
        "inversions": lambda: catalog.names("inversion"),
        "embedders": lambda: catalog.names("embedders"),
        "profiles": _profiles,
        "schedulers": _schedulers,
    }
    if catalog.normal(kind) not in kinds:
        raise catalog.unknown("list", kind, kinds)
    print("\n".join(kinds[catalog.normal(kind)]()))


def _models() -> list[str]:
    from learn_to_steer.families import variants
    from learn_to_steer.families._load import package_folder

    lines = []
    for name, variant in sorted(variants().items()):
        note = variant.note
        try:
            package_folder(variant.source)
        except DataError:
            note = "its weights are not in this copy"
        facts = f"{variant.source}, {variant.side} px, {variant.steps} steps, guidance {variant.guidance:g}"
        lines.append(f"{name:20}{facts}" + (f" ({note})" if note else ""))
    return lines


def _benchmarks() -> list[str]:
    from learn_to_steer.benchmarks import benchmark_names, reads

    return [f"{name:32}reads {reads(name)} (--data)" if reads(name) else name for name in benchmark_names()]


def _profiles() -> list[str]:
    from learn_to_steer.steering.config import PROFILES

    return list(PROFILES)


def _schedulers() -> list[str]:
    from learn_to_steer import catalog

    known = {name: catalog.load("families", name).FAMILY.schedulers for name in catalog.names("families")}
    return [f"{scheduler:36}{name}" for name, schedulers in known.items() for scheduler in schedulers]
