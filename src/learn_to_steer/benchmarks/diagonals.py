"""The four diagonals: "a photo of a A above and to the left of a B", a benchmark of our own.

GenEval has no diagonals. The prompts are drawn as in its position task: two different classes of its 80, then the
relation. Each relation has 50 prompts. The rule is GenEval's along both axes at once, on the best-scoring box of each
class: A must be above B *and* left of B. ``learn_to_steer.geometry.holds`` names the directions for which both hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks.base import BenchmarkPrompt, compose, runnable
from learn_to_steer.geometry import DIAGONAL
from learn_to_steer.vocabulary import CLASSES

NAMES = ("diagonals",)
COUNT = 200
SEED = 37


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make 200 prompts, 50 for each diagonal, with no pair of objects twice; see ``learn_to_steer.benchmarks.prompts``.

    Args:
        name: ``diagonals``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.

    Returns:
        The prompts.
    """
    rng = np.random.default_rng(SEED)
    pairs: dict[frozenset[str], list[str]] = {}
    while len(pairs) < COUNT:
        pair = [CLASSES[i] for i in rng.choice(len(CLASSES), size=2, replace=False)]
        pairs.setdefault(frozenset(pair), pair)
    relations = rng.permutation(np.repeat(DIAGONAL, COUNT // len(DIAGONAL))).tolist()
    made = zip(pairs.values(), relations, strict=True)
    return runnable([compose(index, pair, [relation]) for index, (pair, relation) in enumerate(made)], vocabulary)
