"""Noise levels at which maps are collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError
from learn_to_steer.families import Family, Variant
from learn_to_steer.sampling import sampling_arguments

# Share of the schedule that is done (0 at pure noise): timesteps 961, 881, ... 401 of 1000, the part that is steered.
PROGRESS = tuple(0.039 + 0.08 * index for index in range(8))


def default_levels(pipe: Any, family: Family) -> tuple[float, ...]:
    """Return eight noise levels, spread evenly over the first 60 % of the sampling schedule.

    Args:
        pipe: The pipeline, whose scheduler has the schedule.
        family: Its family.

    Returns:
        The noise levels, noisiest first.
    """
    return tuple(_level_at(pipe, family, progress) for progress in PROGRESS)


@dataclass(frozen=True)
class SamplingPath:
    """The denoising steps of a model's usual schedule at which maps are kept, while it draws."""

    arguments: Mapping[str, Any]
    """Of every pipeline call: size, steps, guidance and so on."""
    schedule: Float[Tensor, " steps"]
    """The times of all denoising steps, as the denoiser takes them."""
    kept: tuple[int, ...]
    """The indices of the steps whose maps are kept."""
    levels: tuple[float, ...]
    """The noise levels of these steps, noisiest first."""

    def level_at(self, time: Tensor) -> int | None:
        """Return the index of the noise level of a denoiser call; None if its maps are not kept.

        Args:
            time: The time that the denoiser is fed, in any precision.
        """
        step = int((self.schedule - time.flatten()[-1].to(self.schedule)).abs().argmin())
        return self.kept.index(step) if step in self.kept else None


def sampling_path(
    pipe: Any, family: Family, variant: Variant, arguments: Mapping[str, Any], side: int, levels: Sequence[float] | None
) -> SamplingPath:
    """Choose the denoising steps whose noise levels are nearest to the wanted ones.

    Args:
        pipe: The pipeline. Its scheduler's timesteps are those of the path afterwards.
        family: Its family.
        variant: How it is usually sampled.
        arguments: Other arguments of the pipeline calls than the usual ones.
        side: Width and height of the pictures in pixels.
        levels: Noise levels in (0, 1]. None: those of the variant, or else eight over the first 60 % of the schedule.
            Of several that are nearest to one step, it is kept once.

    Raises:
        DataError: A level lies outside (0, 1].
    """
    outside = [level for level in levels or () if not 0 < level <= 1]
    if outside:
        raise DataError(f"noise levels lie between 0 and 1 (1 is pure noise), got {outside}")
    wanted = levels or variant.levels or default_levels(pipe, family)
    given = sampling_arguments(variant) | dict(arguments) | {"height": side, "width": side}
    others = {name: value for name, value in given.items() if name not in ("height", "width")}
    record(pipe, family, ["a"], side, side, others, steps=given["num_inference_steps"])
    schedule = torch.stack([family.model_timestep(pipe, step) for step in pipe.scheduler.timesteps]).float().cpu()
    exact = [min(family.noise_level(pipe, time), 1.0) for time in schedule]
    kept = {min(range(len(exact)), key=lambda step: abs(exact[step] - level)) for level in wanted}
    kept_steps = tuple(sorted(kept))
    return SamplingPath(given, schedule, kept_steps, tuple(exact[step] for step in kept_steps))


def parse_noise_levels(text: str) -> tuple[float, ...]:
    """Return the numbers in a text such as "0.9,0.7".

    Args:
        text: Numbers separated by commas.

    Raises:
        DataError: A part of the text is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"noise levels are numbers between 0 and 1, such as '0.9,0.7', not {text!r}") from error


def trained_noise_levels(pipe: Any, family: Family, variant: Variant) -> tuple[float, ...]:
    """Return the noise levels of the denoising steps that the authors trained their classifier on, noisiest first.

    Args:
        pipe: A pipeline of that variant.
        family: Its family.
        variant: The variant of the model.

    Raises:
        DataError: The authors have no classifier for this variant.
    """
    if not variant.trained_steps:
        raise DataError(f"the authors trained no classifier for {variant.name}; name noise levels, or leave them out")
    record(pipe, family, ["a"], variant.resolution, variant.resolution, variant.arguments, steps=variant.steps)
    times = [family.model_timestep(pipe, pipe.scheduler.timesteps[step]) for step in variant.trained_steps]
    return tuple(family.noise_level(pipe, time) for time in times)


def kept_times(
    pipe: Any, family: Family, levels: Sequence[float]
) -> tuple[Float[Tensor, " levels"], tuple[float, ...]]:
    """Return the scheduler's times nearest to some noise levels, and the exact noise levels of these times.

    Args:
        pipe: The pipeline, whose scheduler has the times.
        family: Its family.
        levels: Noise levels in (0, 1], in any order.

    Returns:
        The times, as the denoiser takes them, and their noise levels; both noisiest first.

    Raises:
        DataError: ``levels`` is empty or has a level outside (0, 1], or two levels are nearest to the same time.
    """
    outside = [level for level in levels if not 0 < level <= 1]
    if outside or not levels:
        raise DataError(f"noise levels lie between 0 and 1 (1 is pure noise), got {outside or 'none'}")
    times = family.times(pipe, torch.tensor(sorted(levels, reverse=True)))
    exact = tuple(family.noise_level(pipe, time) for time in times)
    if len(set(exact)) < len(exact):
        raise DataError(f"some of the {len(levels)} noise levels fall on the same time of this scheduler; give fewer")
    return times, exact


def _level_at(pipe: Any, family: Family, progress: float) -> float:
    """The noise level of the time nearest to ``progress``, by bisection: progress falls as noise rises."""

    def progress_and_level(level: float) -> tuple[float, float]:
        time = family.times(pipe, torch.tensor([level]))[0]
        return family.progress(pipe, time), family.noise_level(pipe, time)

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if progress_and_level(middle)[0] > progress else (low, middle)
    ends = (progress_and_level(low), progress_and_level(high))
    return min(ends, key=lambda end: abs(end[0] - progress))[1]
