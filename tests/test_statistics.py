"""Bootstrap intervals cover the truth, clusters widen them, and kappa has its textbook values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learn_to_steer.statistics import clustered_interval, clustered_standard_error, cohens_kappa, paired_interval


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        rate = rng.random(60)  # each prompt has its own rate; their mean is 0.5
        values = (rng.random((60, 4)) < rate[:, None]).ravel().tolist()
        low, high = clustered_interval(values, np.repeat(np.arange(60), 4).tolist(), level=0.9, draws=400, seed=trial)
        covered += low <= 0.5 <= high
    assert 0.85 <= covered / 300 <= 0.95


def test_independent_values_give_the_normal_interval() -> None:
    values = [1.0] * 300 + [0.0] * 100
    low, high = clustered_interval(values, range(400))
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_clusters_widen_the_interval() -> None:
    values = [float(i % 2) for i in range(100) for _ in range(4)]
    free = clustered_interval(values, range(400))
    tied = clustered_interval(values, [i for i in range(100) for _ in range(4)])
    assert tied[1] - tied[0] == pytest.approx(2 * (free[1] - free[0]), rel=0.15)


def test_values_weigh_alike_in_clusters_of_different_size() -> None:
    values, clusters = [1.0] * 9 + [0.0], ["a"] * 9 + ["b"]
    low, high = clustered_interval(values, clusters)
    assert (low, high) == (0.0, 1.0)
    low, high = clustered_interval([1, 0] * 50, ["one"] * 100)
    assert low == high == 0.5


def test_the_level_and_the_seed_matter_and_the_result_repeats() -> None:
    values, clusters = [0, 1, 1, 0, 1, 1, 1, 0, 0, 1] * 5, list(range(50))
    wide, narrow = clustered_interval(values, clusters, level=0.99), clustered_interval(values, clusters, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert clustered_interval(values, clusters, seed=3) == clustered_interval(values, clusters, seed=3)


def test_pairing_takes_the_common_part_away() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(0, 10, 200)
    first, second = (common + 1).tolist(), (common + rng.normal(0, 0.1, 200)).tolist()
    difference, low, high = paired_interval(first, second, range(200))
    assert difference == pytest.approx(1, abs=0.05)
    assert 0.9 < low < difference < high < 1.1
    assert paired_interval(second, first, range(200))[0] == pytest.approx(-difference)


def test_unusable_input_is_refused() -> None:
    for values, clusters in (([], []), ([1.0], [1, 2])):
        with pytest.raises(ValueError, match="give two of the same length"):
            clustered_interval(values, clusters)
    with pytest.raises(ValueError, match="level"):
        clustered_interval([1.0], [1], level=95)
    with pytest.raises(ValueError, match="give two of the same length"):
        paired_interval([1.0, 2.0], [1.0], [1, 2])


def test_kappa() -> None:
    both = [True] * 20 + [False] * 15 + [True] * 5 + [False] * 10
    other = [True] * 20 + [False] * 15 + [False] * 5 + [True] * 10
    assert cohens_kappa(both, other) == pytest.approx(0.4)  # observed 0.7, by chance 0.5
    assert cohens_kappa([True, False], [True, False]) == 1
    assert cohens_kappa([True, False], [False, True]) == -1
    assert cohens_kappa([True, True, False, False], [True, False, True, False]) == 0
    assert math.isnan(cohens_kappa([True, True], [True, True]))


def test_standard_error_of_a_mean() -> None:
    values = [1.0] * 300 + [0.0] * 100
    assert clustered_standard_error(values, range(400)) == pytest.approx(math.sqrt(0.75 * 0.25 / 399))
    tied = clustered_standard_error(
        [value for value in values for _ in range(4)], [i for i in range(400) for _ in range(4)]
    )
    assert tied == pytest.approx(clustered_standard_error(values, range(400)))
    assert clustered_standard_error([1.0, 0.0], ["a", "a"]) == 0
    low, high = clustered_interval(values[::7], range(len(values[::7])))
    assert (high - low) / 3.92 == pytest.approx(clustered_standard_error(values[::7], range(len(values[::7]))), rel=0.1)
    with pytest.raises(ValueError, match="not empty"):
        clustered_standard_error([], [])
