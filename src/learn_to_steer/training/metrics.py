"""Accuracy of a classifier on a split, per noise level and relation, and how much the prompt's words leak.

The leakage probe looks at images whose prompt has a wrong relation: is the true one still predicted, and is the
prompted one predicted more often than other wrong ones? It does so for the maps of both objects together and of each
alone (the other's extracted map replaced by its mean), because the leak may be in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learn_to_steer.classifier import RelationClassifier
from learn_to_steer.collection import MapDataset
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.statistics import clustered_interval

BATCH = 256


@torch.no_grad()
def predict_logits(
    model: RelationClassifier, rows: MapDataset, chosen: Int64[Tensor, " n"]
) -> dict[str, Float[Tensor, "n classes"]]:
    """Predict with both objects and with each alone.

    Args:
        model: The classifier, which is left in eval mode.
        rows: The rows of a split.
        chosen: Indices of the rows to predict.

    Returns:
        Logits on the CPU, from "both" objects, the "subject" alone and the "object" alone.
    """
    model.eval()
    device = next(model.parameters()).device
    extracted = []
    for start in range(0, len(chosen), BATCH):
        index = chosen[start : start + BATCH]
        maps = rows.maps(index).to(device).float()
        level = rows.level[index].to(device)
        one = model.object_extractor(maps.flatten(3).flatten(0, 1), level.repeat_interleave(2))
        extracted.append(one.reshape(len(index), 2, -1))
    objects = torch.cat(extracted)
    mean = objects.mean(dim=0, keepdim=True).expand_as(objects)
    inputs = {
        "both": (objects[:, 0], objects[:, 1]),
        "subject": (objects[:, 0], mean[:, 1]),
        "object": (mean[:, 0], objects[:, 1]),
    }
    level = rows.level[chosen].to(device)
    predicted = {}
    for name, pair in inputs.items():
        parts = [
            model.relation_classifier(*(each[start : start + BATCH] for each in (*pair, level)))
            for start in range(0, len(chosen), BATCH)
        ]
        predicted[name] = torch.cat(parts).cpu()
    return predicted


def evaluate_split(model: RelationClassifier, rows: MapDataset) -> dict[str, Any]:
    """Return accuracy, confusion and leakage of a classifier on one split.

    Accuracies are shares in [0, 1], overall with a 95 % interval over images, per noise level and per relation;
    relations without rows are left out. ``confusion[true][predicted]`` counts rows.

    Args:
        model: The classifier.
        rows: The rows of the split.
    """
    config = model.config
    logits = predict_logits(model, rows, torch.arange(len(rows)))
    predicted = logits["both"].argmax(dim=1)
    correct = predicted == rows.label
    confusion = torch.zeros(len(config.classes), len(config.classes), dtype=torch.int64)
    confusion.index_put_((rows.label, predicted), torch.ones_like(predicted), accumulate=True)
    return {
        "rows": len(rows),
        "pictures": len(set(rows.group.tolist())),
        "accuracy": _mean(correct),
        "accuracy_interval": list(clustered_interval(correct.double().tolist(), rows.group.tolist())),
        "per_level": {f"{v:.4f}": _mean(correct[rows.level == i]) for i, v in enumerate(config.levels)},
        "per_relation": {
            name: _mean(correct[rows.label == i])
            for i, name in enumerate(config.classes)
            if bool((rows.label == i).any())
        },
        "confusion": {
            name: dict(zip(config.classes, confusion[i].tolist(), strict=True)) for i, name in enumerate(config.classes)
        },
        "leakage": {name: _leakage(values, rows, config.classes) for name, values in logits.items()},
    }


def _leakage(logits: Float[Tensor, "n classes"], rows: MapDataset, classes: Sequence[str]) -> dict[str, float]:
    """Accuracy on true and wrong prompts, and how often the relation of a wrong prompt is predicted.

    ``by_chance`` is that share if errors fell evenly on all wrong classes. Neutral prompts have no relation word.
    """
    predicted = logits.argmax(dim=1)
    correct = predicted == rows.label
    wrong = rows.prompted != rows.label
    word = wrong & (rows.prompted != classes.index(NEUTRAL)) if NEUTRAL in classes else wrong
    return {
        "true_prompts": _mean(correct[~wrong]),
        "wrong_prompts": _mean(correct[wrong]),
        "names_prompted_word": _mean((predicted == rows.prompted)[word]),
        "by_chance": (1 - _mean(correct[word])) / (len(classes) - 1),
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0
