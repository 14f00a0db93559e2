"""Intervals for scores of images that are not independent, and the agreement of two judges.

Images of one prompt succeed or fail together, so the bootstrap draws whole clusters (prompts), not images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def clustered_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile-bootstrap interval (low, high) of the mean of ``values``, resampling whole clusters.

    ``clusters[i]`` says to which cluster (prompt) value i belongs; clusters may differ in size. The interval
    shrinks to a point when all values are equal: with few images that is too sure of itself.

    Raises ValueError when the inputs are empty, differ in length, or ``level`` is not between 0 and 1.
    """
    _check(values, clusters)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    count = len(numbers)
    sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64), minlength=count)
    sizes = np.bincount(member, minlength=count)
    # How often each cluster is drawn: one row a bootstrap replicate.
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    means: NDArray[np.float64] = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of ``first - second`` and its clustered bootstrap interval: (difference, low, high).

    Value i of both belongs to the same prompt and seed. Raises ValueError as clustered_interval does.
    """
    _check(first, second)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    low, high = clustered_interval(differences, clusters, level=level, draws=draws, seed=seed)
    return float(np.mean(differences)), low, high


def cohens_kappa(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Agreement of two judges beyond chance: 1 perfect, 0 as by chance, negative below it.

    NaN when both judges always give the same one answer, for chance then agrees fully as well.
    Raises ValueError when the inputs are empty or differ in length. *Source:* Cohen 1960.
    """
    _check(a, b)
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    observed = float(np.mean(first == second))
    yes = float(first.mean() * second.mean())
    no = float((1 - first.mean()) * (1 - second.mean()))
    chance = yes + no
    return float("nan") if chance == 1 else (observed - chance) / (1 - chance)


def _check(a: Sequence[object], b: Sequence[object]) -> None:
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"two sequences of one length above 0 are needed, not {len(a)} and {len(b)}")
