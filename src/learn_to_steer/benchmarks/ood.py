"""One relation between two objects of the Learn-to-Steer paper's out-of-distribution list (Appendix C.5).

The paper's own 200 prompts are not public; these are drawn by its template, seeded, with proper articles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks._compose import compose
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, runnable
from learn_to_steer.benchmarks.multi_relation import OUT_OF_DISTRIBUTION
from learn_to_steer.geometry import BASIC

NAMES = ("ood",)
COUNT = 200
SEED = 31


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """200 different prompts "a photo of a A r a B"; see ``learn_to_steer.benchmarks.prompts``."""
    rng = np.random.default_rng(SEED)
    found: dict[str, BenchmarkPrompt] = {}
    while len(found) < COUNT:
        nouns = [OUT_OF_DISTRIBUTION[i] for i in rng.choice(len(OUT_OF_DISTRIBUTION), size=2, replace=False)]
        prompt = compose(len(found), nouns, [BASIC[rng.choice(len(BASIC))]])
        found.setdefault(prompt.prompt, prompt)
    return runnable(found.values(), vocabulary)
