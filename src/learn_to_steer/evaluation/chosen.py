"""Which prompts an evaluation is about, and whether its detector can judge them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError, PromptError, UnsupportedError
from learn_to_steer.evaluation.score import Judge, asked, judge


class Choice(Protocol):
    """The settings that name prompts."""

    @property
    def benchmark(self) -> str | None: ...
    @property
    def prompts(self) -> str | None: ...
    @property
    def data(self) -> str | None: ...
    @property
    def detector(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def seed(self) -> int: ...


def every(choice: Choice, vocabulary: Mapping[str, str] | None) -> list[BenchmarkPrompt]:
    """All prompts that ``choice`` names, runnable with ``vocabulary`` (None: whether or not they are).

    Raises DataError when it names both a benchmark and a file, or neither, PromptError when no prompt is left.
    """
    if (choice.benchmark is None) == (choice.prompts is None):
        names = ", ".join(benchmarks.benchmark_names())
        raise DataError(f"name a benchmark or a file of prompts, one of the two; benchmarks: {names}")
    if choice.prompts is not None:
        if choice.data is not None:
            raise DataError("--data is what a benchmark reads; leave it out beside --prompts")
        return benchmarks.load_file(choice.prompts)
    found = benchmarks.prompts(choice.benchmark or "", vocabulary, choice.data)
    if not found:
        raise PromptError(f"the detector {choice.detector} sees the objects of no prompt of {choice.benchmark}")
    return found


def judged(choice: Choice, judge_: Judge, among: Collection[int] | None = None) -> list[BenchmarkPrompt]:
    """The prompts of ``choice`` that ``judge_`` can judge, no more than its limit, of those numbered ``among``.

    Raises PromptError when there is none, UnsupportedError when one asks for colours and the detector tells none.
    """
    everything = [p for p in every(choice, judge_.vocabulary) if among is None or p.index in among]
    if not everything:
        raise PromptError(f"none of the pictures are of a prompt of {choice.benchmark or choice.prompts}")
    prompts = everything if choice.limit is None else benchmarks.stratified(everything, choice.limit, choice.seed)
    rule = benchmarks.rule(choice.benchmark, judge_.detector.counting)
    for prompt in prompts:
        judge(prompt, [], judge_.vocabulary, rule)
    if choice.benchmark is not None:
        _check_colors(prompts, judge_)
    return prompts


def _check_colors(prompts: Sequence[BenchmarkPrompt], judge_: Judge) -> None:
    """Raise UnsupportedError when a prompt asks for a colour and the detector tells none."""
    asking = next((p for p in prompts if asked(p).colors), None)
    if asking is not None and not judge_.detector.tells_colors:
        raise UnsupportedError(
            f"the detector {judge_.detector.name} tells no colours, which {asking.prompt!r} asks for; "
            "choose another --detector, or a benchmark without colours such as geneval-counting"
        )
