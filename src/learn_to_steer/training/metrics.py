"""The accuracy of a classifier on a split, and how much the words of the prompt leak into its predictions.

The leakage probe uses rows whose prompt has a wrong relation. It measures how often the true relation is predicted
nevertheless, and how often the prompted one. It does so with the maps of both objects, and with those of one object
alone (the pooled map of the other is replaced by its mean), since the leak may be in either of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    model: RelationClassifier, rows: MapDataset, index: Int64[Tensor, " n"]
) -> dict[str, Float[Tensor, "n classes"]]:
    """Predict from the maps of both objects, and of each alone.

    Args:
        model: The classifier; it is set to eval mode.
        rows: The rows of a split.
        index: Indices of the rows to predict.

    Returns:
        Logits on the CPU by "both", "subject" and "object": the objects whose maps are used.
    """
    model.eval()
    device = next(model.parameters()).device
    extracted = []
    for start in range(0, len(index), BATCH):
        batch = index[start : start + BATCH]
        maps = rows.maps(batch).to(device).float()
        level = rows.level[batch].to(device)
        pooled = model.object_extractor(maps.flatten(3).flatten(0, 1), level.repeat_interleave(2))
        extracted.append(pooled.reshape(len(batch), 2, -1))
    objects = torch.cat(extracted)
    mean = objects.mean(dim=0, keepdim=True).expand_as(objects)
    inputs = {
        "both": (objects[:, 0], objects[:, 1]),
        "subject": (objects[:, 0], mean[:, 1]),
        "object": (mean[:, 0], objects[:, 1]),
    }
    level = rows.level[index].to(device)
    predicted = {}
    for name, pair in inputs.items():
        parts = [
            model.relation_classifier(*(each[start : start + BATCH] for each in (*pair, level)))
            for start in range(0, len(index), BATCH)
        ]
        predicted[name] = torch.cat(parts).cpu()
    return predicted


def evaluate_split(
    model: RelationClassifier, rows: MapDataset, logits: Mapping[str, Float[Tensor, "rows classes"]] | None = None
) -> dict[str, Any]:
    """Return accuracy, confusion matrix and leakage of a classifier on one split.

    Args:
        model: The classifier.
        rows: The rows of the split.
        logits: What ``predict_logits`` returned for all of them. None: they are predicted here.

    Returns:
        The number of ``rows`` and images (``pictures``); ``accuracy`` in [0, 1] with a 95 % interval over images, also
        per noise level and per relation that occurs; ``confusion[true][predicted]``, which counts rows; and
        ``leakage`` by the objects whose maps are used.
    """
    config = model.config
    logits = logits or predict_logits(model, rows, torch.arange(len(rows)))
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
    """The accuracy under true and wrong prompts, and how often the relation of a wrong prompt is predicted.

    ``by_chance`` is how often it would be if errors were spread evenly over all wrong classes. Neutral prompts name no
    relation, so they are left out of both. ``rows`` is the number of the others; without any, both mean nothing.
    """
    predicted = logits.argmax(dim=1)
    correct = predicted == rows.label
    wrong = rows.prompted != rows.label
    names_a_wrong_relation = wrong & (rows.prompted != classes.index(NEUTRAL)) if NEUTRAL in classes else wrong
    return {
        "true_prompts": _mean(correct[~wrong]),
        "wrong_prompts": _mean(correct[wrong]),
        "names_prompted_word": _mean((predicted == rows.prompted)[names_a_wrong_relation]),
        "by_chance": (1 - _mean(correct[names_a_wrong_relation])) / (len(classes) - 1),
        "rows": int(names_a_wrong_relation.sum()),
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0
