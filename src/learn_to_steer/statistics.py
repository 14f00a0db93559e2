"""Confidence intervals for scores of images that are not independent, and the agreement of two raters.

Images of one prompt tend to succeed or fail together, so the bootstrap resamples whole clusters (prompts), not images.
"""

from __future__ import annotations

import math
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
    """Compute the percentile-bootstrap confidence interval of a mean, resampling whole clusters.

    If all values are equal, the interval is a single point, which is too narrow for few images.

    Args:
        values: One value for each image.
        clusters: The cluster (such as the prompt) of each value; clusters may differ in size.
        level: Confidence level, between 0 and 1.
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The lower and the upper end of the interval.

    Raises:
        ValueError: The inputs are empty or differ in length, or ``level`` is not between 0 and 1.
    """
    _check(values, clusters)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}; 0.95 is usual")
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    count = len(numbers)
    sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64), minlength=count)
    sizes = np.bincount(member, minlength=count)
    # How often each cluster is drawn: one row for each bootstrap sample.
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
    """Compute the mean difference of two systems on the same prompts and seeds, with its clustered interval.

    Args:
        first: Values of the first system.
        second: Values of the second system. Value i of both has the same prompt and seed.
        clusters: As in ``clustered_interval``.
        level: Confidence level, between 0 and 1.
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The mean of ``first - second``, and the lower and the upper end of its interval.

    Raises:
        ValueError: As in ``clustered_interval``.
    """
    _check(first, second)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    low, high = clustered_interval(differences, clusters, level=level, draws=draws, seed=seed)
    return float(np.mean(differences)), low, high


def clustered_standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Compute the standard error of a mean of values that are not independent within clusters.

    Args:
        values: One value for each image.
        clusters: The cluster of each value; clusters may differ in size.

    Returns:
        The standard error; 0 if there is one cluster only, which says nothing about others.

    Raises:
        ValueError: The inputs are empty or differ in length.
    """
    _check(values, clusters)
    mean, sums = float(np.mean(values)), dict[Hashable, float]()
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    count = len(sums)
    squares = sum(total**2 for total in sums.values())
    return math.sqrt(count / max(1, count - 1) * squares) / len(values)


def cohens_kappa(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Compute Cohen's kappa: the agreement of two raters beyond chance.

    Source: Cohen, A Coefficient of Agreement for Nominal Scales (1960).

    Args:
        a: Answers of the first rater.
        b: Answers of the second rater to the same questions.

    Returns:
        1 for perfect agreement, 0 for agreement by chance, negative for less. NaN if both raters always give the same
        answer: chance alone then agrees perfectly.

    Raises:
        ValueError: The inputs are empty or differ in length.
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
        raise ValueError(f"the sequences have {len(a)} and {len(b)} values; give two of the same length, not empty")
