"""The interface of a benchmark: its prompts, its scores, and functions to make prompts.

A benchmark is one file of this folder, or a module that an installed package registers. It offers:

- ``NAMES``: the names of its prompt sets on the command line;
- ``prompts(name, vocabulary)``: the prompts of one set, see ``benchmarks.prompts``;
- optionally ``score``, a ``Rule`` of its own, in place of GenEval's rule for relations;
- optionally ``metrics(rows)``: the numbers that it publishes, from the rows of ``results.jsonl``;
- optionally ``READS``: the name of a file that the user must give; ``prompts`` takes its path as third argument;
- optionally ``COUNTING_THRESHOLD``: the detection score above which it counts objects; ``score`` then takes the
  keyword ``counting``, which replaces it;
- optionally ``HELD_OUT = False``, if training data cannot leave out its pairs of objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from learn_to_steer.benchmarks._object_names import is_known
from learn_to_steer.geometry import Detection
from learn_to_steer.prompts import Relation, indefinite_article, phrase

Size = tuple[float, float]  # width and height of an image, in the unit of its boxes


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt of a benchmark.

    Attributes:
        index: Its number, which names the folder of its images. It is the same in every subset of the benchmark.
        prompt: The text.
        relations: Its relations, with character spans; empty if it has none.
        metadata: Its line of GenEval's ``metadata.jsonl``: ``tag`` is the task, ``include`` names the objects.
        parsed: Whether the relations were found in the text. One that cannot be steered is then left out; otherwise it
            is an error.
    """

    index: int
    prompt: str
    relations: tuple[Relation, ...]
    metadata: dict[str, Any]
    parsed: bool = False

    @property
    def objects(self) -> set[str]:
        """The names of its objects, as the relations write them; without relations, as the metadata does."""
        if self.relations:
            return {name for relation in self.relations for name in (relation.subject, relation.object)}
        return {entry["class"] for entry in self.metadata["include"]}


@dataclass(frozen=True)
class Score:
    """The score of one image.

    Attributes:
        correct: Whether the image shows everything in the prompt.
        present: Whether every object was detected.
        held: Whether each relation holds, in the order of the prompt.
        reason: Why the image is not correct, several reasons separated by "; "; empty if it is correct.
        scores: What else the benchmark measures, by name.
    """

    correct: bool
    present: bool
    held: tuple[bool, ...]
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """How a benchmark scores one image."""

    def __call__(
        self,
        prompt: BenchmarkPrompt,
        detections: Sequence[Detection],
        vocabulary: Mapping[str, str] | None = None,
        size: Size | None = None,
    ) -> Score:
        """Score one image.

        Args:
            prompt: The prompt of the image.
            detections: The detections in the image, above the detector's own threshold.
            vocabulary: Every name and alias that the detector knows -> the class it reports. None: see
                ``matching_detections``.
            size: Width and height of the image, in the unit of the boxes.

        Returns:
            The score.

        Raises:
            UnknownNameError: ``vocabulary`` does not contain an object of the prompt.
        """


def compose(
    index: int, objects: Sequence[str], joints: Sequence[str | None], prefix: str = "a photo of"
) -> BenchmarkPrompt:
    """Write the prompt "<prefix> a A r1 a B r2 a C ..." with its relations and their character spans.

    Args:
        index: The prompt's index.
        objects: Nouns, without articles.
        joints: ``joints[i]`` is the predicate between objects i and i + 1; None for "and", which starts a new pair.
        prefix: What the prompt begins with; may be empty.

    Returns:
        The prompt, with GenEval's metadata.
    """
    text, spans = prefix, []
    for place, noun in enumerate(objects):
        if place:
            predicate = joints[place - 1]
            text += " and" if predicate is None else f" {phrase(predicate)}"
        text += f"{' ' if text else ''}{indefinite_article(noun)} {noun}"
        spans.append((len(text) - len(noun), len(text)))
    relations = tuple(
        Relation(objects[i], predicate, objects[i + 1], subject_span=spans[i], object_span=spans[i + 1])
        for i, predicate in enumerate(joints)
        if predicate is not None
    )
    return BenchmarkPrompt(index, text, relations, geneval_line(text, relations))


def geneval_line(prompt: str, relations: Iterable[Relation]) -> dict[str, Any]:
    """Make GenEval's metadata of a prompt.

    For every relation ``include`` lists the reference, then the subject with a "position" that points to it.
    ``version`` 2 means that "position" reads "this entry, relation, that entry", as in GenEval. The Learn-to-Steer
    authors' evaluator reads files without a version in the opposite order: "that entry, relation, this entry".

    Args:
        prompt: The text.
        relations: Its relations.

    Returns:
        The metadata: a line of ``metadata.jsonl``.
    """
    include: list[dict[str, Any]] = []
    for relation in relations:
        include.append({"class": relation.object, "count": 1})
        include.append({"class": relation.subject, "count": 1, "position": [relation.predicate, len(include) - 1]})
    return {"tag": "position", "version": 2, "include": include, "prompt": prompt}


def runnable(prompts: Iterable[BenchmarkPrompt], vocabulary: Mapping[str, str] | None) -> list[BenchmarkPrompt]:
    """Select the prompts whose objects a detector knows.

    Args:
        prompts: All prompts.
        vocabulary: Every name and alias that the detector knows -> the class it reports; None keeps every prompt.

    Returns:
        The selected prompts, in the same order.
    """
    if vocabulary is None:
        return list(prompts)
    return [prompt for prompt in prompts if all(is_known(name, vocabulary) for name in prompt.objects)]


def stratified(prompts: Sequence[BenchmarkPrompt], limit: int, seed: int) -> list[BenchmarkPrompt]:
    """Draw a random subset in which every task and relation keeps its share.

    Prompts with several relations are grouped by all of them together.

    Args:
        prompts: All prompts.
        limit: Number of prompts to draw; all are returned when there are not more.
        seed: Seed of the draw.

    Returns:
        The subset, in the order of ``prompts``.

    Raises:
        ValueError: ``limit`` is below 1.
    """
    if limit < 1:
        raise ValueError(f"a subset needs at least 1 prompt, not {limit}")
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[prompt.metadata.get("tag", ""), *(r.predicate for r in prompt.relations)].append(place)
    rng = np.random.default_rng(seed)
    ranked: list[tuple[float, float, int]] = []
    for members in groups.values():
        # Each group is spread evenly over [0, 1), so any prefix of that range holds all groups in proportion.
        spread = ((rank + 0.5) / len(members) for rank in range(len(members)))
        ties = rng.random(len(members))
        ranked += zip(spread, ties.tolist(), rng.permutation(members).tolist(), strict=True)
    return [prompts[place] for place in sorted(place for _, _, place in sorted(ranked)[:limit])]
