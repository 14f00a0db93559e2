"""Three to five objects under two or three relations, by the Learn-to-Steer paper's templates (Appendix C.5).

The paper's prompt files are not public; these are drawn by its rules, seeded, with proper articles.
``multi-relation-*`` has the paper's in-distribution objects, ``multi-relation-ood-*`` its out-of-distribution
ones. ``multi-relation-val-*`` are other prompts of the first kind, to tune on. Another package may add prompts with
objects of its own: ``draw``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learn_to_steer.benchmarks._object_names import matching_detections
from learn_to_steer.benchmarks.base import BenchmarkPrompt, Score, Size, compose, runnable
from learn_to_steer.benchmarks.geneval import score_relations
from learn_to_steer.geometry import BASIC, Detection, basic_relations

COUNT = 200
SEED = 29

# Objects-relations -> what joins each object to the next: a relation, or "and", which starts a new pair.
FORMS = {
    "3-2": ("relation", "relation"),
    "4-2": ("relation", "and", "relation"),
    "4-3": ("relation", "relation", "relation"),
    "5-3": ("relation", "relation", "and", "relation"),
}
SPLITS = {"": 0, "ood-": 8, "val-": 12}  # the first seed of each; 4 to 7 are taken
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
    """200 different prompts of ``name``; within a prompt neither an object nor a relation comes twice.

    See ``learn_to_steer.benchmarks.prompts``.
    """
    split, form = name.removeprefix("multi-relation-")[:-3], name[-3:]
    tested = {prompt.prompt for prompt in prompts(name.replace("val-", ""))} if split == "val-" else set()
    objects = OUT_OF_DISTRIBUTION if split == "ood-" else IN_DISTRIBUTION
    return runnable(draw(form, objects, SPLITS[split], tested), vocabulary)


def draw(form: str, objects: Sequence[str], seed: int, excluded: Collection[str] = ()) -> list[BenchmarkPrompt]:
    """200 different prompts of one form.

    Args:
        form: A key of ``FORMS``.
        objects: Nouns to draw from.
        seed: Of the first form; the others count on from it. A set of objects has a seed of its own.
        excluded: Texts that none of the prompts may be.

    Returns:
        Prompts numbered from 0.
    """
    joins = FORMS[form]
    rng = np.random.default_rng([SEED, seed + list(FORMS).index(form)])
    found: dict[str, BenchmarkPrompt] = {}
    while len(found) < COUNT:
        nouns = [objects[i] for i in rng.choice(len(objects), size=len(joins) + 1, replace=False)]
        relations = iter([BASIC[i] for i in rng.choice(len(BASIC), size=joins.count("relation"), replace=False)])
        prompt = compose(len(found), nouns, [next(relations) if join == "relation" else None for join in joins])
        if prompt.prompt not in excluded:
            found.setdefault(prompt.prompt, prompt)
    return list(found.values())


def score(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    canonical: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """The strict verdict, each relation on its own pair, and beside it the authors' ``compat``; a ``Rule``.

    The authors' evaluator keeps the relations that it has found at earlier pairs of a prompt, so that these may
    stand in for a later pair's: on random layouts of small boxes 1.3 times the strict score with two relations,
    more than twice with three. ``compat`` is for comparison with their published numbers.
    """
    strict = score_relations(prompt, detections, canonical, size)
    compat = strict.present
    seen: set[str] = set()
    for relation in prompt.relations if strict.present else ():
        subject, reference = (
            matching_detections(n, detections, canonical)[0] for n in (relation.subject, relation.object)
        )
        seen |= basic_relations(subject.box, reference.box)
        compat = compat and relation.predicate in seen
    return replace(strict, scores={"compat": float(compat)})


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``strict`` is the accuracy; ``compat`` the same images by the authors' lenient evaluator."""
    return {
        "strict": sum(row["correct"] for row in rows) / len(rows),
        "compat": sum(row["scores"]["compat"] for row in rows) / len(rows),
    }
