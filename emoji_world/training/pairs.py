"""Prompts "a X and a Y" about two random objects."""

from __future__ import annotations

import numpy as np

from learn_to_steer.evaluation.generation import Job
from learn_to_steer.prompts import indefinite_article
from learn_to_steer_emoji.sprites import object_names


def and_jobs(count: int, rng: np.random.Generator) -> tuple[list[list[str]], list[Job]]:
    """Draw different pairs of objects.

    Args:
        count: How many.
        rng: Drawn from.

    Returns:
        The pairs of names, and one image to draw for each.
    """
    names = object_names()
    drawn = ([names[i] for i in rng.choice(len(names), 2, replace=False)] for _ in range(2 * count + 100))
    first: dict[frozenset[str], list[str]] = {}
    for pair in drawn:
        first.setdefault(frozenset(pair), pair)
    pairs = list(first.values())[:count]
    return pairs, [Job(f"{indefinite_article(a)} {a} and {indefinite_article(b)} {b}", (), 0) for a, b in pairs]
