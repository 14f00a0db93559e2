"""Select the prompts of a run: from a benchmark or a file, those that the detector can score."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import BenchmarkPrompt, Rule
from learn_to_steer.errors import DataError, PromptError, UnsupportedError
from learn_to_steer.evaluation.scoring import Scorer, detection_query


@dataclass(frozen=True)
class PromptSelection:
    """A benchmark or a file of prompts, and the number of prompts to select.

    Attributes:
        benchmark: Name of a benchmark.
        file: A JSON-lines file of prompts, instead of a benchmark.
        data: The file that the benchmark reads its prompts from, if it reads one.
        limit: Number of prompts to select at random; None for all prompts.
        seed: Seed of that selection.
    """

    benchmark: str | None
    file: str | None
    data: str | None
    limit: int | None
    seed: int

    def check(self) -> None:
        """Check the selection without a detector.

        Raises:
            DataError: Both a benchmark and a file are named, or neither; or a file cannot be read.
            UnknownNameError: There is no such benchmark.
        """
        self._all(None)

    def rule(self, scorer: Scorer) -> Rule:
        """The benchmark's rule, with the detector's own threshold for counting where it has one."""
        return benchmarks.rule(self.benchmark, scorer.detector.counting)

    def select(self, scorer: Scorer, among: Collection[int] | None = None) -> list[BenchmarkPrompt]:
        """Select the prompts that a scorer can score.

        Args:
            scorer: The scorer of the images.
            among: Numbers of the prompts to select from; None for all.

        Returns:
            The prompts, in the order of the benchmark or file.

        Raises:
            PromptError: No prompt is left.
            UnknownNameError: A prompt of a file names an object that the detector does not know.
            UnsupportedError: The benchmark needs colours, and the detector does not report them.
        """
        candidates = [p for p in self._all(scorer) if among is None or p.index in among]
        if not candidates:
            raise PromptError(
                f"none of the images are of a prompt of {self.benchmark or self.file}; name the prompts that they were "
                "generated from"
            )
        prompts = candidates if self.limit is None else benchmarks.stratified(candidates, self.limit, self.seed)
        scorer.require_objects(prompts, self.rule(scorer))
        if self.benchmark is not None:
            _require_colors(scorer, prompts)
        return prompts

    def _all(self, scorer: Scorer | None) -> list[BenchmarkPrompt]:
        """All prompts; of a benchmark, those whose objects ``scorer`` knows."""
        if (self.benchmark is None) == (self.file is None):
            names = ", ".join(benchmarks.benchmark_names())
            raise DataError(f"name a benchmark or a file of prompts, one of the two (benchmarks: {names})")
        if self.file is not None:
            if self.data is not None:
                raise DataError(
                    "--data names the file that a benchmark reads, but --prompts is given; leave one of them out"
                )
            return benchmarks.load_file(self.file)
        prompts = benchmarks.prompts(self.benchmark or "", scorer.vocabulary if scorer else None, self.data)
        if not prompts:
            detector = scorer.detector.name if scorer else "any detector"
            raise PromptError(
                f"no prompt of {self.benchmark} has only objects that the detector {detector} knows; choose another "
                "--detector or benchmark"
            )
        return prompts


def _require_colors(scorer: Scorer, prompts: Sequence[BenchmarkPrompt]) -> None:
    """Raise UnsupportedError if a prompt needs colours and the detector does not report them."""
    colored = next((prompt for prompt in prompts if detection_query(prompt).colors), None)
    if colored is not None and not scorer.detector.tells_colors:
        raise UnsupportedError(
            f"the detector {scorer.detector.name} tells no colours, which the prompt {colored.prompt!r} needs; "
            "choose another --detector, or a benchmark without colours such as geneval-counting"
        )
