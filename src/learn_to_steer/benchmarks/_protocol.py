"""What every benchmark yields, prompts and the verdict on a picture of one, and a fair subset of the prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from learn_to_steer.benchmarks._names import is_known
from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import Relation

Size = tuple[float, float]  # width and height of a picture, in the unit of its boxes


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt of a benchmark.

    ``index`` is the number of its image folder: unique within the benchmark, whatever subset is taken.
    ``relations`` name their objects as the prompt writes them and carry their character spans; there are none
    where the prompt asks for something else. ``metadata`` is the line for GenEval's ``metadata.jsonl``: its
    ``tag`` is the task, its ``include`` names the objects.
    """

    index: int
    prompt: str
    relations: tuple[Relation, ...]
    metadata: dict[str, Any]

    @property
    def objects(self) -> set[str]:
        """The names of its objects, as its relations write them or, without one, as its metadata does."""
        if self.relations:
            return {name for relation in self.relations for name in (relation.subject, relation.object)}
        return {entry["class"] for entry in self.metadata["include"]}


@dataclass(frozen=True)
class Score:
    """The verdict on one image.

    ``present``: every object was found. ``held``: one answer per relation, in the prompt's order. ``correct``:
    all that the prompt asks for is there. ``reason``: empty when correct, else what was wrong, "; " between
    several. ``scores``: what the benchmark measures beside that, by name.
    """

    correct: bool
    present: bool
    held: tuple[bool, ...]
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """How a benchmark judges one image; see ``score_relations`` for the arguments."""

    def __call__(
        self,
        prompt: BenchmarkPrompt,
        detections: Sequence[Detection],
        canonical: Mapping[str, str] | None = None,
        size: Size | None = None,
    ) -> Score: ...


def geneval_line(prompt: str, relations: Iterable[Relation]) -> dict[str, Any]:
    """The metadata line for ``prompt``: per relation its reference, then its subject, which points to it.

    ``version`` 2 says that "position" reads "this entry, relation, that entry", as in GenEval; the
    Learn-to-Steer authors' evaluator takes files without it to mean the reverse.
    """
    include: list[dict[str, Any]] = []
    for relation in relations:
        include.append({"class": relation.object, "count": 1})
        include.append({"class": relation.subject, "count": 1, "position": [relation.predicate, len(include) - 1]})
    return {"tag": "position", "version": 2, "include": include, "prompt": prompt}


def runnable(prompts: Iterable[BenchmarkPrompt], vocabulary: Mapping[str, str] | None) -> list[BenchmarkPrompt]:
    """The prompts whose objects are all in ``vocabulary`` (name or alias -> class); None keeps every prompt."""
    if vocabulary is None:
        return list(prompts)
    return [prompt for prompt in prompts if all(is_known(name, vocabulary) for name in prompt.objects)]


def stratified(prompts: Sequence[BenchmarkPrompt], limit: int, seed: int) -> list[BenchmarkPrompt]:
    """A seeded subset of ``limit`` prompts in which each task and relation keeps its share; file order is kept.

    Prompts of several relations are grouped by all of them together. All prompts when ``limit`` is not
    below their number; ValueError when it is below 1.
    """
    if limit < 1:
        raise ValueError(f"a subset needs at least 1 prompt, not {limit}")
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[prompt.metadata.get("tag", ""), *(r.predicate for r in prompt.relations)].append(place)
    rng = np.random.default_rng(seed)
    ranked: list[tuple[float, float, int]] = []
    for members in groups.values():
        # Spread evenly over [0, 1), every group fills any prefix of that range in proportion to its size.
        spread = ((rank + 0.5) / len(members) for rank in range(len(members)))
        ties = rng.random(len(members))
        ranked += zip(spread, ties.tolist(), rng.permutation(members).tolist(), strict=True)
    return [prompts[place] for place in sorted(place for _, _, place in sorted(ranked)[:limit])]
