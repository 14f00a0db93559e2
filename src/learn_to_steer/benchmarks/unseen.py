"""One relation between two objects that the emoji world's classifier has never been trained on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from learn_to_steer.benchmarks._compose import compose
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, runnable
from learn_to_steer.geometry import BASIC

NAMES = ("unseen",)
COUNT = 200
SEED = 17


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """200 different prompts "a photo of a A r a B", 50 a relation, over the sprite table's unseen objects.

    See ``learn_to_steer.benchmarks.prompts``.
    """
    # Imported late: the sprite table's module loads torch.
    from learn_to_steer.emoji.sprites import object_names

    rng = np.random.default_rng(SEED)
    pairs = list(permutations(object_names("unseen"), 2))
    share = COUNT // len(BASIC)
    chosen = [(*pairs[i], r) for r in BASIC for i in rng.choice(len(pairs), size=share, replace=False)]
    shuffled = [chosen[i] for i in rng.permutation(len(chosen))]
    return runnable([compose(index, [a, b], [r]) for index, (a, b, r) in enumerate(shuffled)], vocabulary)
