"""The benchmark ``unseen``: one relation between two objects on which no packaged classifier was trained."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from learn_to_steer.benchmarks import BenchmarkPrompt, compose, runnable
from learn_to_steer.geometry import BASIC
from learn_to_steer_emoji.sprites import object_names

NAMES = ("unseen",)
COUNT = 200
SEED = 17


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make 200 different prompts "a photo of a A r a B" about unseen objects, 50 for each relation.

    Args:
        name: ``unseen``.
        vocabulary: Name or alias -> class of the detector; prompts with other objects are left out. None keeps all.

    Returns:
        The prompts in a fixed, shuffled order.
    """
    rng = np.random.default_rng(SEED)
    pairs = list(permutations(object_names("unseen"), 2))
    share = COUNT // len(BASIC)
    chosen = [(*pairs[i], r) for r in BASIC for i in rng.choice(len(pairs), size=share, replace=False)]
    shuffled = [chosen[i] for i in rng.permutation(len(chosen))]
    return runnable([compose(index, [a, b], [r]) for index, (a, b, r) in enumerate(shuffled)], vocabulary)
