"""Benchmarks: prompt sets, and the rules that score detected boxes against them.

One file is one family of benchmarks; ``base`` says what a file offers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

from learn_to_steer import registry
from learn_to_steer.benchmarks._object_boxes import boxes_of_relations
from learn_to_steer.benchmarks._object_names import (
    detected_numbers,
    detector_class,
    is_one_thing,
    matching_detections,
)
from learn_to_steer.benchmarks._prompt_files import export, load_file
from learn_to_steer.benchmarks.base import (
    BenchmarkPrompt,
    Rule,
    Score,
    Size,
    compose,
    geneval_line,
    runnable,
    stratified,
)
from learn_to_steer.benchmarks.geneval import score_relations
from learn_to_steer.errors import DataError, PluginError

__all__ = [
    "BenchmarkPrompt",
    "Rule",
    "Score",
    "Size",
    "benchmark_names",
    "boxes_of_relations",
    "compose",
    "detected_numbers",
    "detector_class",
    "export",
    "geneval_line",
    "held_out_names",
    "is_one_thing",
    "load_file",
    "matching_detections",
    "metrics",
    "prompts",
    "reads",
    "rule",
    "runnable",
    "score_relations",
    "stratified",
]


def benchmark_names() -> list[str]:
    """The names of all benchmarks on the command line, in the order of their files."""
    return list(_declared().entries)


def held_out_names() -> list[str]:
    """Names of the benchmarks whose pairs of objects training data can leave out."""
    return [name for name, module in _declared().entries.items() if getattr(module, "HELD_OUT", True)]


def prompts(name: str, vocabulary: Mapping[str, str] | None = None, data: str | None = None) -> list[BenchmarkPrompt]:
    """Make or read the prompts of a benchmark whose objects a detector knows.

    Args:
        name: Name of the benchmark.
        vocabulary: Every name and alias that the detector knows -> the class it reports; None for all prompts.
        data: Path of the file that the benchmark reads, if it reads one; see ``reads``.

    Returns:
        The prompts, in the benchmark's order.

    Raises:
        UnknownNameError: There is no such benchmark; the message names the nearest one.
        DataError: The file is missing or not the published one, or the benchmark reads none.
    """
    module = _find(name)
    if reads(name):
        from_file: list[BenchmarkPrompt] = module.prompts(registry.normal(name), vocabulary, data)
        return from_file
    if data is not None:
        raise DataError(f"the benchmark {registry.normal(name)} reads no file; leave --data out")
    generated: list[BenchmarkPrompt] = module.prompts(registry.normal(name), vocabulary)
    return generated


def reads(name: str) -> str:
    """Name the file that the user must give for a benchmark.

    Args:
        name: Name of the benchmark.

    Returns:
        The file's name and publisher; empty if the benchmark makes its own prompts.

    Raises:
        UnknownNameError: There is no such benchmark.
    """
    return str(getattr(_find(name), "READS", ""))


def rule(name: str | None, counting: float | None = None) -> Rule:
    """Get the rule by which a benchmark scores images.

    Args:
        name: Name of the benchmark; None for a user's own prompts, which are scored by ``score_relations``.
        counting: Detection score above which objects are counted; None for the benchmark's own. It has no effect on
            benchmarks that do not count.

    Returns:
        The rule.

    Raises:
        UnknownNameError: There is no such benchmark.
    """
    module = _find(name) if name is not None else None
    own: Rule = getattr(module, "score", score_relations)
    counts = counting is not None and hasattr(module, "COUNTING_THRESHOLD")
    return cast(Rule, partial(own, counting=counting)) if counts else own  # type: ignore[call-arg]


def metrics(name: str | None, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute the numbers that a benchmark publishes, beside accuracy.

    Args:
        name: Name of the benchmark; None for a user's own prompts.
        rows: Rows of ``results.jsonl``, one for each image.

    Returns:
        The numbers by name; empty if the benchmark publishes none.

    Raises:
        UnknownNameError: There is no such benchmark.
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
