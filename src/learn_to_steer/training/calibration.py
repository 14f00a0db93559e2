"""Temperatures that make a classifier's probabilities agree with how often it is right, and the error that is left.

The temperature of a noise level divides the logits there before the softmax. It changes no prediction.

Source:
    Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599: temperature scaling and the expected
    calibration error. One temperature per noise level and their prior are new here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from learn_to_steer.classifier import RelationClassifier
from learn_to_steer.collection import MapDataset
from learn_to_steer.training.metrics import predict_logits

LARGEST = 20.0  # a temperature; the smallest is 1 / LARGEST
CANDIDATES = 601  # temperatures tried between the two, one per cent apart; the middle one is 1
# Standard deviations of the logarithms, before any image is seen: of the common temperature around 0, and of those of
# the levels around it. With few images the temperatures stay near 1 and near each other.
SPREAD_OF_ALL, SPREAD_OF_LEVEL = 1.0, 0.25
MOST_BINS = 15
LEAST_IN_BIN = 10  # rows


def fit_temperatures(
    logits: Float[Tensor, "rows classes"],
    label: Int64[Tensor, " rows"],
    level: Int64[Tensor, " rows"],
    group: Int64[Tensor, " rows"],
    levels: int,
) -> tuple[float, ...]:
    """Return the most probable temperature of every noise level.

    The rows of one image are not independent, so the images of a level count together no more than their number.

    Args:
        logits: Logits on held-out rows.
        label: Indices of the true relations.
        level: Indices of the noise levels.
        group: Numbers of the images.
        levels: The number of noise levels. One without rows gets the temperature that all have in common.
    """
    tried = torch.linspace(-1, 1, CANDIDATES, dtype=torch.float64) * torch.tensor(LARGEST).double().log()
    logits = logits.double()
    total = (tried / SPREAD_OF_ALL).square() / 2  # -log probability, by the common temperature
    from_common = ((tried[:, None] - tried) / SPREAD_OF_LEVEL).square() / 2
    best = []  # of each level, by the common temperature, given which the levels are independent of each other
    for number in range(levels):
        its = level == number
        cost = torch.zeros_like(tried)
        if images := len(set(group[its].tolist())):
            cost = images * torch.stack([functional.cross_entropy(logits[its] / t, label[its]) for t in tried.exp()])
        least = (cost + from_common).min(dim=1)
        total = total + least.values
        best.append(least.indices)
    common = total.argmin()
    return tuple(round(float(tried[indices[common]].exp()), 3) for indices in best)


def calibration_error(probability: Float[Tensor, " rows"], correct: Bool[Tensor, " rows"]) -> float:
    """Return the expected calibration error: how far confidence is from the share of right predictions, on average.

    Rows are sorted by confidence into bins of the same size: 15, or fewer of at least ten rows.

    Args:
        probability: The probability of the predicted class.
        correct: Whether it is the true one.
    """
    bins = max(1, min(MOST_BINS, len(probability) // LEAST_IN_BIN))
    order = probability.argsort(stable=True)
    difference = (probability.double() - correct.double())[order]
    return sum(abs(float(part.sum())) for part in difference.tensor_split(bins)) / max(1, len(difference))


def measure_calibration(
    model: RelationClassifier,
    rows: MapDataset,
    temperatures: Sequence[float],
    logits: Float[Tensor, "rows classes"] | None = None,
) -> dict[str, Any]:
    """Return the expected calibration error before and after the logits are divided by temperatures.

    Args:
        model: The trained classifier.
        rows: The rows to measure on.
        temperatures: One per noise level.
        logits: Those of the rows, from the maps of both objects. None: they are predicted here.

    Returns:
        The number of images (``pictures``), and by noise level (``per_level``) the ``temperature``, the number of
        ``rows``, and the ``error`` ``before`` and ``after``.
    """
    if logits is None:
        logits = predict_logits(model, rows, torch.arange(len(rows)))["both"]
    divided = logits / torch.tensor(temperatures)[rows.level, None]
    correct = logits.argmax(dim=1) == rows.label
    before, after = (scores.softmax(dim=1).amax(dim=1) for scores in (logits, divided))
    per_level = {}
    for number, (value, temperature) in enumerate(zip(model.config.levels, temperatures, strict=True)):
        its = rows.level == number
        errors = {"before": calibration_error(before[its], correct[its])}
        errors["after"] = calibration_error(after[its], correct[its])
        per_level[f"{value:.4f}"] = {"temperature": temperature, "rows": int(its.sum()), "error": errors}
    return {"pictures": len(set(rows.group.tolist())), "per_level": per_level}
