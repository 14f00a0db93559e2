"""Prompt sets, and the rules that score boxes against them; no detector is seen here.

One file holds one family of benchmarks: its ``NAMES`` are the names used on the command line, its
``prompts(name, vocabulary)`` the prompts. It may also have ``score``, its own ``Rule``; ``metrics(rows)``, the
numbers it publishes, from the rows of ``results.jsonl``; ``READS``, which file of the user's its ``prompts``
take as a third argument; and ``HELD_OUT = False`` when training data cannot do without its pairs of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

from learn_to_steer import registry
from learn_to_steer.benchmarks._compose import compose
from learn_to_steer.benchmarks._export import export
from learn_to_steer.benchmarks._file import load_file
from learn_to_steer.benchmarks._names import class_of, found_as
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, Rule, Score, Size, geneval_line, runnable, stratified
from learn_to_steer.benchmarks._scoring import score_relations
from learn_to_steer.errors import DataError, PluginError

__all__ = [
    "BenchmarkPrompt",
    "Rule",
    "Score",
    "Size",
    "benchmark_names",
    "class_of",
    "compose",
    "export",
    "found_as",
    "geneval_line",
    "held_out_names",
    "load_file",
    "metrics",
    "prompts",
    "reads",
    "rule",
    "runnable",
    "score_relations",
    "stratified",
]


def benchmark_names() -> list[str]:
    """Names of all benchmarks, as used on the command line, in the order of their files."""
    return list(_declared().entries)


def held_out_names() -> list[str]:
    """Names of the benchmarks whose pairs of objects training data can leave out."""
    return [name for name, module in _declared().entries.items() if getattr(module, "HELD_OUT", True)]


def prompts(name: str, vocabulary: Mapping[str, str] | None = None, data: str | None = None) -> list[BenchmarkPrompt]:
    """The prompts of a benchmark, those only whose objects ``vocabulary`` names (None: all of them).

    ``vocabulary`` maps every name and alias a detector answers to on its class. ``data`` is the file that the
    benchmark reads, if it reads one. Raises UnknownNameError with the nearest match for a benchmark that does
    not exist, and DataError for data that is missing, of no use, or not the published one.
    """
    module = _find(name)
    if reads(name):
        read: list[BenchmarkPrompt] = module.prompts(registry.normal(name), vocabulary, data)
        return read
    if data is not None:
        raise DataError(f"the benchmark {registry.normal(name)} reads no file; leave --data out")
    made: list[BenchmarkPrompt] = module.prompts(registry.normal(name), vocabulary)
    return made


def reads(name: str) -> str:
    """Which file of the user's the benchmark ``name`` reads its prompts from; empty when it makes them."""
    return str(getattr(_find(name), "READS", ""))


def rule(name: str | None, counting: float | None = None) -> Rule:
    """The rule of the benchmark ``name``; that of spatial relations for prompts of the user's own (None).

    ``counting`` is the score above which objects are counted, for a rule that counts; None: the benchmark's own.
    """
    module = _find(name) if name is not None else None
    own: Rule = getattr(module, "score", score_relations)
    counts = counting is not None and hasattr(module, "COUNTING_THRESHOLD")
    return cast(Rule, partial(own, counting=counting)) if counts else own  # type: ignore[call-arg]


def metrics(name: str | None, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The numbers that the benchmark ``name`` publishes, beside accuracy; none for prompts of the user's own (None).

    ``rows`` are those of ``results.jsonl``, one an image.
    """
    own = getattr(_find(name), "metrics", None) if name is not None else None
    return own(rows) if own else {}


def _find(name: str) -> Any:
    known = _declared()
    if registry.normal(name) in known.clashes:
        raise PluginError(known.clashes[registry.normal(name)])
    if registry.normal(name) not in known.entries:
        raise registry.unknown("benchmark", name, known.entries)
    return known.entries[registry.normal(name)]


@cache
def _declared() -> registry.Declared[Any]:
    """The plug-in behind every benchmark's name."""
    return registry.declared(lambda plugin: dict.fromkeys(plugin.NAMES, plugin), "benchmarks")
