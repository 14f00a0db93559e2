"""The four diagonals: "a photo of a A above and to the left of a B", a benchmark of our own.

GenEval has no diagonals. The prompts are drawn as its position task draws: two different ones of its 80
classes, then the relation, with 50 prompts of each. The rule is GenEval's for both of a diagonal's axes at
once, on the best-scoring box of each class: A must be above B *and* left of B. GenEval itself accepts such a
picture for "above" and for "left of"; what is only above, or only left, is no diagonal.
See ``learn_to_steer.geometry.holds`` for what that leaves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks._compose import compose
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, runnable
from learn_to_steer.benchmarks.geneval import CLASSES
from learn_to_steer.geometry import DIAGONAL

NAMES = ("diagonals",)
COUNT = 200
SEED = 37


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """200 prompts, 50 of each diagonal, no pair of objects twice; see ``learn_to_steer.benchmarks.prompts``."""
    rng = np.random.default_rng(SEED)
    pairs: dict[frozenset[str], list[str]] = {}
    while len(pairs) < COUNT:
        pair = [CLASSES[i] for i in rng.choice(len(CLASSES), size=2, replace=False)]
        pairs.setdefault(frozenset(pair), pair)
    relations = rng.permutation(np.repeat(DIAGONAL, COUNT // len(DIAGONAL))).tolist()
    made = zip(pairs.values(), relations, strict=True)
    return runnable([compose(index, pair, [relation]) for index, (pair, relation) in enumerate(made)], vocabulary)
