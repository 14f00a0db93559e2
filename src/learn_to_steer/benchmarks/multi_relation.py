"""Three to five objects under two or three relations, by the Learn-to-Steer paper's templates (Appendix C.5).

The paper's prompt files are not public; these are drawn by its rules, seeded, with proper articles.
``multi-relation-*`` has the paper's in-distribution objects, ``multi-relation-ood-*`` its out-of-distribution
ones. ``multi-relation-val-*`` are other prompts with the in-distribution objects, to tune settings on. Another package
can make prompts of its own objects with ``draw``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learn_to_steer.benchmarks._object_boxes import boxes_of_relations
from learn_to_steer.benchmarks.base import BenchmarkPrompt, Score, Size, compose, runnable
from learn_to_steer.benchmarks.geneval import score_relations
from learn_to_steer.geometry import BASIC, Detection, basic_relations

COUNT = 200
SEED = 29

# "<objects>-<relations>" -> what stands between each object and the next: a relation, or "and" between two pairs.
FORMS = {
    "3-2": ("relation", "relation"),
    "4-2": ("relation", "and", "relation"),
    "4-3": ("relation", "relation", "relation"),
    "5-3": ("relation", "relation", "and", "relation"),
}
SPLITS = {"": 0, "ood-": 8, "val-": 12}  # the first seed of each; a package with objects of its own uses 4 to 7
NAMES = tuple(f"multi-relation-{split}{form}" for split in SPLITS for form in FORMS)

IN_DISTRIBUTION = (
    *("backpack", "bowl", "cat", "skateboard", "bottle", "cake", "tie", "vase"),
    *("sheep", "toothbrush", "teddy bear", "suitcase", "mouse", "knife", "chair", "umbrella"),
)
OUT_OF_DISTRIBUTION = (
    *("teapot", "corgi", "furby", "robot", "turtle", "rabbit", "butterfly", "key"),
    *("pig", "bee", "tiger", "hammer", "monkey", "razor", "snake", "stapler"),
)


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make 200 different prompts; within a prompt neither an object nor a relation comes twice.

    See ``learn_to_steer.benchmarks.prompts``.

    Args:
        name: One of ``NAMES``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.

    Returns:
        The prompts.
    """
    split, form = name.removeprefix("multi-relation-")[:-3], name[-3:]
    tested = {prompt.prompt for prompt in prompts(name.replace("val-", ""))} if split == "val-" else set()
    objects = OUT_OF_DISTRIBUTION if split == "ood-" else IN_DISTRIBUTION
    return runnable(draw(form, objects, SPLITS[split], tested), vocabulary)


def draw(form: str, objects: Sequence[str], seed: int, excluded: Collection[str] = ()) -> list[BenchmarkPrompt]:
    """Draw 200 different prompts of one form.

    Args:
        form: A key of ``FORMS``.
        objects: Nouns to draw from.
        seed: Seed of the first form; the n-th form has ``seed + n``. Every list of objects needs seeds of its own.
        excluded: Texts of prompts that must not be drawn.

    Returns:
        The prompts, numbered from 0.
    """
    joins = FORMS[form]
    rng = np.random.default_rng([SEED, seed + list(FORMS).index(form)])
    made: dict[str, BenchmarkPrompt] = {}
    while len(made) < COUNT:
        nouns = [objects[i] for i in rng.choice(len(objects), size=len(joins) + 1, replace=False)]
        relations = iter([BASIC[i] for i in rng.choice(len(BASIC), size=joins.count("relation"), replace=False)])
        prompt = compose(len(made), nouns, [next(relations) if join == "relation" else None for join in joins])
        if prompt.prompt not in excluded:
            made.setdefault(prompt.prompt, prompt)
    return list(made.values())


def score(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    vocabulary: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """Score strictly, each relation on its own pair, and also as the authors do (``compat``); a ``Rule``.

    The authors' evaluator collects the relations of all pairs of a prompt so far, and a pair passes if its relation is
    among them, even if it holds for an earlier pair only. On random layouts of small boxes its score is 1.3 times the
    strict one with two relations, and more than twice with three. ``compat`` is for comparison with their published
    numbers.

    Args:
        prompt: The prompt of the image.
        detections: The detections in the image, above the detector's own threshold.
        vocabulary: Every name and alias that the detector knows -> the class it reports. None: see
            ``matching_detections``.
        size: Has no effect.

    Returns:
        The score; ``scores`` has ``compat``, 1 or 0.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object of the prompt.
    """
    strict = score_relations(prompt, detections, vocabulary, size)
    compat = strict.present
    collected: set[str] = set()
    boxes = boxes_of_relations(prompt, detections, vocabulary)
    for relation, (subject, reference) in zip(prompt.relations, boxes, strict=True):
        if subject is None or reference is None:
            break
        collected |= basic_relations(subject.box, reference.box)
        compat = compat and relation.predicate in collected
    return replace(strict, scores={"compat": float(compat)})


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute the accuracy by both rules.

    Args:
        rows: Rows of ``results.jsonl``, one for each image.

    Returns:
        ``strict``, the accuracy; ``compat``, the accuracy by the authors' more lenient rule.
    """
    return {
        "strict": sum(row["correct"] for row in rows) / len(rows),
        "compat": sum(row["scores"]["compat"] for row in rows) / len(rows),
    }
