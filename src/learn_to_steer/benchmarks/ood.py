"""One relation between two objects of the Learn-to-Steer paper's out-of-distribution list.

Source: arXiv 2509.02295, appendix C.5. The paper's own 200 prompts are not public; these are drawn with its template
from a fixed seed, with correct articles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks.base import BenchmarkPrompt, compose, runnable
from learn_to_steer.benchmarks.multi_relation import OUT_OF_DISTRIBUTION
from learn_to_steer.geometry import BASIC

NAMES = ("ood",)
COUNT = 200
SEED = 31


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make 200 different prompts "a photo of a A r a B"; see ``learn_to_steer.benchmarks.prompts``.

    Args:
        name: ``ood``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.

    Returns:
        The prompts.
    """
    rng = np.random.default_rng(SEED)
    made: dict[str, BenchmarkPrompt] = {}
    while len(made) < COUNT:
        nouns = [OUT_OF_DISTRIBUTION[i] for i in rng.choice(len(OUT_OF_DISTRIBUTION), size=2, replace=False)]
        prompt = compose(len(made), nouns, [BASIC[rng.choice(len(BASIC))]])
        made.setdefault(prompt.prompt, prompt)
    return runnable(made.values(), vocabulary)
