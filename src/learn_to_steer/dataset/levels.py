"""Noise levels at which maps are collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError
from learn_to_steer.families import Family, Variant

# Shares of the schedule that lie behind: for 1000 times 961, 881, ... 401, where steering does its work.
ELAPSED = tuple(0.039 + 0.08 * index for index in range(8))


def default_levels(pipe: Any, family: Family) -> tuple[float, ...]:
    """Eight noise levels spread evenly over the noisier three fifths of the schedule, noisiest first."""
    return tuple(_level_at(pipe, family, elapsed) for elapsed in ELAPSED)


def parsed(text: str) -> tuple[float, ...]:
    """Noise levels from "0.9,0.7"; DataError when they are no numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"noise levels are numbers between 0 and 1, as '0.9,0.7', not {text!r}") from error


def trained_levels(pipe: Any, family: Family, variant: Variant) -> tuple[float, ...]:
    """The noise levels of the steps on which the authors' classifier for ``variant`` was trained, noisiest first.

    DataError for a variant that they had no classifier for.
    """
    if not variant.trained_steps:
        raise DataError(f"the authors trained no classifier for {variant.name}; name noise levels, or leave them out")
    record(pipe, family, ["a"], variant.side, variant.side, variant.arguments, steps=variant.steps)
    times = [family.fed(pipe.scheduler.timesteps[step]) for step in variant.trained_steps]
    return tuple(family.noise_level(pipe, time) for time in times)


def kept_times(pipe: Any, family: Family, levels: Sequence[float]) -> tuple[Tensor, tuple[float, ...]]:
    """What the network is fed at ``levels``, and the levels it really has then, both noisiest first.

    Raises DataError for levels outside (0, 1], for none, and for two that fall on the same time.
    """
    wrong = [level for level in levels if not 0 < level <= 1]
    if wrong or not levels:
        raise DataError(f"noise levels lie between 0 and 1 (1 is pure noise), got {wrong or 'none'}")
    times = family.times(pipe, torch.tensor(sorted(levels, reverse=True)))
    exact = tuple(family.noise_level(pipe, time) for time in times)
    if len(set(exact)) < len(exact):
        raise DataError(
            f"some of the {len(levels)} noise levels fall on the same time of this scheduler; ask for fewer"
        )
    return times, exact


def _level_at(pipe: Any, family: Family, elapsed: float) -> float:
    """The noise level whose time is nearest to ``elapsed``, by bisection: more noise, less of the schedule behind."""

    def behind(level: float) -> tuple[float, float]:
        time = family.times(pipe, torch.tensor([level]))[0]
        return family.elapsed(pipe, time), family.noise_level(pipe, time)

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if behind(middle)[0] > elapsed else (low, middle)
    return min((behind(low), behind(high)), key=lambda found: abs(found[0] - elapsed))[1]
