"""Prompt sets with known relations, and the rule that scores boxes against them; no detector is seen here.

One file holds one family of benchmarks: its ``NAMES`` are the names used on the command line, its
``prompts(name, vocabulary)`` the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from learn_to_steer import catalog
from learn_to_steer.benchmarks._file import load_file
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, geneval_line, stratified
from learn_to_steer.benchmarks._scoring import Score, class_of, score_relations

__all__ = [
    "BenchmarkPrompt",
    "Score",
    "benchmark_names",
    "class_of",
    "geneval_line",
    "load_file",
    "prompts",
    "score_relations",
    "stratified",
]


def benchmark_names() -> list[str]:
    """Names of all benchmarks, as used on the command line, in the order of their files."""
    return list(_by_name())


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """The prompts of a benchmark, those only whose objects ``vocabulary`` names (None: all of them).

    ``vocabulary`` maps every name and alias a detector answers to on its class. Raises UnknownNameError
    with the nearest match for a benchmark that does not exist.
    """
    modules = _by_name()
    if catalog.normal(name) not in modules:
        raise catalog.unknown("benchmark", name, modules)
    found: list[BenchmarkPrompt] = modules[catalog.normal(name)].prompts(catalog.normal(name), vocabulary)
    return found


def _by_name() -> dict[str, ModuleType]:
    modules = [catalog.load("benchmarks", file) for file in catalog.names("benchmarks")]
    return {name: module for module in modules for name in module.NAMES}
