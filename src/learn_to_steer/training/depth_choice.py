"""Choose how many layers a classifier reads: the fewest that are about as accurate as the best.

Passes end after the last layer that is read, so a smaller depth makes steering faster. A classifier of each candidate
depth is trained with the same settings, all on the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learn_to_steer.collection import Manifest
from learn_to_steer.collection.noise_levels import PROGRESS
from learn_to_steer.maps import Layout
from learn_to_steer.model_names import find_variant
from learn_to_steer.statistics import clustered_standard_error, paired_interval
from learn_to_steer.steering import SteeringConfig
from learn_to_steer.training.trainer import Trained

SHARES = (Fraction(1, 6), Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(2, 3), Fraction(1))
log = logging.getLogger(__name__)

Steered = Mapping[tuple[int, int], bool]
"""Whether an image is right, by numbers of its prompt and of the image."""


def candidate_depths(manifest: Manifest) -> list[int]:
    """Return the depths that are tried: about a sixth to all of the layers of a collection, in ascending order."""
    return possible_depths(len(Layout.from_dict(manifest.layout).layers))


def possible_depths(layers: int) -> list[int]:
    """Return about a sixth to all of ``layers``, in ascending order."""
    return sorted({ceil(share * layers) for share in SHARES})


def steered_levels(manifest: Manifest) -> list[int]:
    """Return the indices of those noise levels at which the model of a collection is steered; at least the noisiest.

    Where the levels are not the usual ones, 1 - level stands for the share of the schedule that is over. This is exact
    for flow matching; of Stable Diffusion it counts some levels after the window.
    """
    variant = find_variant(str(manifest.settings.get("model", "")))
    window = (variant.steering if variant else {}).get("window", SteeringConfig().window)
    usual = manifest.settings.get("levels") is None and len(manifest.levels) == len(PROGRESS)
    progress = PROGRESS if usual else tuple(1 - level for level in manifest.levels)
    return [index for index, share in enumerate(progress) if share <= window or index == 0]


def choose_by_accuracy(candidates: Sequence[Trained], levels: Sequence[int]) -> tuple[int, dict[str, Any]]:
    """Choose the least depth whose accuracy is within one standard error of the best, clustered by image.

    Args:
        candidates: The candidates, in ascending order of depth.
        levels: Indices of the noise levels that count.

    Returns:
        The index of the candidate, and the table for metrics and model card.
    """
    rows = torch.isin(candidates[0].level, torch.tensor(levels))
    images = candidates[0].group[rows].tolist()
    right = [candidate.correct[rows].double().tolist() for candidate in candidates]
    accuracy = [float(np.mean(values)) for values in right]
    best = accuracy.index(max(accuracy))
    error = clustered_standard_error(right[best], images)
    chosen = next(index for index, value in enumerate(accuracy) if value >= accuracy[best] - error)
    tried = [{"depth": each.config.depth, "accuracy": value} for each, value in zip(candidates, accuracy, strict=True)]
    depth = candidates[chosen].config.depth
    log.info(
        "depth %s is chosen, with accuracy %.3f; the best, %.3f, is that of depth %s (standard error %.3f)",
        *(depth, accuracy[chosen], accuracy[best], candidates[best].config.depth, error),
    )
    return chosen, {
        "chosen": depth,
        "pictures": len(set(images)),
        "levels": [candidates[0].model.config.levels[index] for index in levels],
        "standard_error": error,
        "tried": tried,
    }


def confirm_by_steering(
    candidates: Sequence[Trained], chosen: int, steer: Callable[[Path], Steered]
) -> tuple[int, list[dict[str, Any]]]:
    """Steer with the chosen classifier and with that of full depth; take the next deeper one while it is worse.

    It is worse if the whole 95 % interval of the difference, paired by image and clustered by prompt, is below zero.

    Args:
        candidates: The candidates, in ascending order of depth; the last one has full depth.
        chosen: The index of the chosen one.
        steer: Steers with the classifier in a folder.

    Returns:
        The index of the confirmed candidate, and a row for each comparison.
    """
    full, comparisons = candidates[-1], list[dict[str, Any]]()
    theirs = steer(full.folder) if chosen < len(candidates) - 1 else {}
    for index in range(chosen, len(candidates) - 1):
        depth, ours = candidates[index].config.depth, steer(candidates[index].folder)
        own, other = ([float(side[key]) for key in theirs] for side in (ours, theirs))
        difference, low, high = paired_interval(own, other, [prompt for prompt, _ in theirs])
        accuracy, full_accuracy = float(np.mean(own)), float(np.mean(other))
        comparisons.append(
            {
                "depth": depth,
                "images": len(theirs),
                "accuracy": accuracy,
                "full_accuracy": full_accuracy,
                "difference_interval": [low, high],
                "worse": high < 0,
            }
        )
        if high >= 0:
            return index, comparisons
        log.warning(
            "depth %d steers worse than full depth: %.2f of %d images are right instead of %.2f (difference %.2f "
            "[%.2f, %.2f]); the next deeper one is taken",
            *(depth, accuracy, len(theirs), full_accuracy, difference, low, high),
        )
    return len(candidates) - 1, comparisons
