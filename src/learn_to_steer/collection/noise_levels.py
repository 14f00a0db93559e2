"""Noise levels at which maps are collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError
from learn_to_steer.families import Family, Variant

# Progress along the schedule, 0 at pure noise: for 1000 timesteps 961, 881, ... 401, where steering acts.
PROGRESS = tuple(0.039 + 0.08 * index for index in range(8))


def default_levels(pipe: Any, family: Family) -> tuple[float, ...]:
    """Return eight noise levels, spread evenly over the noisier three fifths of the schedule, noisiest first."""
    return tuple(_level_at(pipe, family, progress) for progress in PROGRESS)


def parse_noise_levels(text: str) -> tuple[float, ...]:
    """Return the noise levels of a text as "0.9,0.7". Raises DataError when they are no numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"noise levels are numbers between 0 and 1, as '0.9,0.7', not {text!r}") from error


def trained_noise_levels(pipe: Any, family: Family, variant: Variant) -> tuple[float, ...]:
    """Return the noise levels of the steps on which the authors' classifier was trained, noisiest first.

    Args:
        pipe: The pipeline of that variant.
        family: Its family.
        variant: The variant of the model.

    Raises:
        DataError: The authors have no classifier for this variant.
    """
    if not variant.trained_steps:
        raise DataError(f"the authors trained no classifier for {variant.name}; name noise levels, or leave them out")
    record(pipe, family, ["a"], variant.resolution, variant.resolution, variant.arguments, steps=variant.steps)
    times = [family.model_timestep(pipe.scheduler.timesteps[step]) for step in variant.trained_steps]
    return tuple(family.noise_level(pipe, time) for time in times)


def kept_times(
    pipe: Any, family: Family, levels: Sequence[float]
) -> tuple[Float[Tensor, " levels"], tuple[float, ...]]:
    """Return the times nearest to some noise levels, and the exact levels of these times.

    Args:
        pipe: The pipeline, whose scheduler has the times.
        family: Its family.
        levels: Noise levels in (0, 1], in any order.

    Returns:
        What the network is fed, and the noise levels it has then; both noisiest first.

    Raises:
        DataError: Levels lie outside (0, 1], there are none, or two fall on the same time.
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


def _level_at(pipe: Any, family: Family, progress: float) -> float:
    """The noise level whose time is nearest to ``progress``, by bisection: progress falls as noise rises."""

    def reached(level: float) -> tuple[float, float]:
        time = family.times(pipe, torch.tensor([level]))[0]
        return family.progress(pipe, time), family.noise_level(pipe, time)

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle)[0] > progress else (low, middle)
    return min((reached(low), reached(high)), key=lambda found: abs(found[0] - progress))[1]
