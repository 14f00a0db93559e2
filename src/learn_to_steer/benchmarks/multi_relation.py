"""Three to five objects under two or three relations, by the Learn-to-Steer paper's templates (Appendix C.5).

The paper's prompt files are not public; these are drawn by its rules, seeded, with proper articles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks._compose import compose
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, runnable
from learn_to_steer.geometry import BASIC

COUNT = 200
SEED = 29

# Objects-relations -> what joins each object to the next: a relation, or "and", which starts a new pair.
FORMS = {
    "3-2": ("relation", "relation"),
    "4-2": ("relation", "and", "relation"),
    "4-3": ("relation", "relation", "relation"),
    "5-3": ("relation", "relation", "and", "relation"),
}
NAMES = tuple(f"multi-relation-{split}{form}" for split in ("", "unseen-") for form in FORMS)

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

    Objects are the paper's in-distribution list, or its out-of-distribution list, as far as the sprite
    table has them as seen or unseen objects. See ``learn_to_steer.benchmarks.prompts``.
    """
    # Imported late: the sprite table's module loads torch.
    from learn_to_steer.emoji.sprites import object_names

    unseen = "unseen" in name
    drawable = object_names("unseen" if unseen else "seen")
    objects = [noun for noun in (OUT_OF_DISTRIBUTION if unseen else IN_DISTRIBUTION) if noun in drawable]
    joins = FORMS[name[-3:]]
    rng = np.random.default_rng([SEED, NAMES.index(name)])
    found: dict[str, BenchmarkPrompt] = {}
    while len(found) < COUNT:
        nouns = [objects[i] for i in rng.choice(len(objects), size=len(joins) + 1, replace=False)]
        relations = iter([BASIC[i] for i in rng.choice(len(BASIC), size=joins.count("relation"), replace=False)])
        prompt = compose(len(found), nouns, [next(relations) if join == "relation" else None for join in joins])
        found.setdefault(prompt.prompt, prompt)
    return runnable(found.values(), vocabulary)
