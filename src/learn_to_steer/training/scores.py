"""What a classifier is worth on a split: per noise level and relation, and the leakage probe.

The probe asks, on pictures whose prompt names a wrong relation: is the true one still predicted, and is the prompted
one predicted more often than any other wrong one? It asks so for both objects' maps together and for each apart
(the other object's extracted map replaced by its mean), for a leak may sit in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.classifier import RelationClassifier
from learn_to_steer.dataset import Rows
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.statistics import clustered_interval

BATCH = 256


@torch.no_grad()
def logits(model: RelationClassifier, rows: Rows, chosen: Tensor) -> dict[str, Tensor]:
    """Logits (n, classes) on the CPU of the rows ``chosen``: from "both" objects, "subject" alone, "object" alone.

    Leaves the model in eval mode.
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
    seen = {
        "both": (objects[:, 0], objects[:, 1]),
        "subject": (objects[:, 0], mean[:, 1]),
        "object": (mean[:, 0], objects[:, 1]),
    }
    level = rows.level[chosen].to(device)
    found = {}
    for name, pair in seen.items():
        parts = [
            model.relation_classifier(*(each[start : start + BATCH] for each in (*pair, level)))
            for start in range(0, len(chosen), BATCH)
        ]
        found[name] = torch.cat(parts).cpu()
    return found


def scores(model: RelationClassifier, rows: Rows) -> dict[str, Any]:
    """Accuracy with its interval over pictures, per level and relation, confusion, and the leakage probe.

    Shares in [0, 1]; ``confusion[true][predicted]`` counts rows. Classes without rows are left out.
    """
    config = model.config
    found = logits(model, rows, torch.arange(len(rows)))
    predicted = found["both"].argmax(dim=1)
    right = predicted == rows.label
    confusion = torch.zeros(len(config.classes), len(config.classes), dtype=torch.int64)
    confusion.index_put_((rows.label, predicted), torch.ones_like(predicted), accumulate=True)
    return {
        "rows": len(rows),
        "pictures": len(set(rows.group.tolist())),
        "accuracy": _mean(right),
        "accuracy_interval": list(clustered_interval(right.double().tolist(), rows.group.tolist())),
        "per_level": {f"{v:.4f}": _mean(right[rows.level == i]) for i, v in enumerate(config.levels)},
        "per_relation": {
            name: _mean(right[rows.label == i])
            for i, name in enumerate(config.classes)
            if bool((rows.label == i).any())
        },
        "confusion": {
            name: dict(zip(config.classes, confusion[i].tolist(), strict=True)) for i, name in enumerate(config.classes)
        },
        "leakage": {name: _probe(values, rows, config.classes) for name, values in found.items()},
    }


def _probe(values: Tensor, rows: Rows, classes: Sequence[str]) -> dict[str, float]:
    """Accuracy on true and wrong prompts, and how often a wrong prompt's relation word is what is predicted.

    ``by_chance`` is that share if errors fell evenly on all wrong classes. A prompt of the neutral class has no word.
    """
    predicted = values.argmax(dim=1)
    right = predicted == rows.label
    wrong = rows.prompted != rows.label
    word = wrong & (rows.prompted != classes.index(NEUTRAL)) if NEUTRAL in classes else wrong
    return {
        "true_prompts": _mean(right[~wrong]),
        "wrong_prompts": _mean(right[wrong]),
        "names_prompted_word": _mean((predicted == rows.prompted)[word]),
        "by_chance": (1 - _mean(right[word])) / (len(classes) - 1),
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0
