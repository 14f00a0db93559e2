"""The benchmarks ``multi-relation-unseen-*``: several relations between objects on which no classifier was trained.

The objects are those of the paper's out-of-distribution objects that have a sprite. Source: paper, Appendix C.5.
"""

from __future__ import annotations

from collections.abc import Mapping

from learn_to_steer.benchmarks import BenchmarkPrompt, runnable
from learn_to_steer.benchmarks.multi_relation import FORMS, OUT_OF_DISTRIBUTION, draw, metrics, score
from learn_to_steer_emoji.sprites import object_names

__all__ = ["NAMES", "metrics", "prompts", "score"]
NAMES = tuple(f"multi-relation-unseen-{form}" for form in FORMS)
SEED = 4


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make 200 different prompts. No prompt repeats an object or a relation.

    Args:
        name: One of ``NAMES``.
        vocabulary: Name or alias -> class of the detector; prompts with other objects are left out. None keeps all.

    Returns:
        The prompts in a fixed order.
    """
    drawable = object_names("unseen")
    objects = [noun for noun in OUT_OF_DISTRIBUTION if noun in drawable]
    return runnable(draw(name.removeprefix("multi-relation-unseen-"), objects, SEED), vocabulary)
