"""The learned loss: cross-entropy of the relation classifier, with the prompt's relation as the target class.

Source: Learn-to-Steer, arXiv 2509.02295, section 3, the steering loss; sapir1779/learn-to-steer,
``pipelines/test_time_optimization.py``.

Differs: nothing; the neutral class stays in the softmax, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from learn_to_steer.classifier import RelationClassifier
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.losses.base import LossOutput, ObjectPair, StepInfo
from learn_to_steer.maps import AttentionMaps, Choice, Layout, MapSpec, Reduce


def _layers_of(layout: Layout) -> Choice:
    """Chooses the layers that a layout has; a model may have more, which then need not run."""
    names = {layer.name for layer in layout.layers}
    return lambda layers, height, width: [layer for layer in layers if layer.name in names]


class Learned:
    """Loss of a relation: cross-entropy of the classifier's logits.

    The probability is that of the logits divided by the temperature of the noise level, where the classifier has one.
    The loss is not divided, so that a temperature changes when steering stops, and not where it goes.

    All relations of all samples go through the classifier in one batch. The schedule is empty: the defaults of
    ``SteeringConfig`` were chosen for this loss.

    Args:
        classifier: The trained classifier; its layout says which maps it reads.
    """

    schedule: Mapping[str, Any] = {}

    def __init__(self, classifier: RelationClassifier) -> None:
        self.classifier = classifier.eval()
        layout = classifier.layout
        self.spec = MapSpec(layout.softmax, choose=_layers_of(layout)) if layout else MapSpec("text")
        self._renormalise = layout.renormalise if layout else True
        self._reduce: Reduce = layout.reduce if layout else "none"

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``; raises MismatchError if the classifier was trained on other layers."""
        trained_on = self.classifier.layout
        if trained_on is not None:
            trained_on.require(layout)

    def predicates(self) -> tuple[str, ...]:
        """The classes of the classifier, without the neutral one."""
        return tuple(name for name in self.classifier.config.classes if name != NEUTRAL)

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``; every predicate is one of ``predicates()``."""
        config = self.classifier.config
        stacked = maps.stack(config.side, self._renormalise, self._reduce)
        flat = [(b, r, pair) for b, sample in enumerate(object_pairs) for r, pair in enumerate(sample)]
        device = stacked.device
        if (
            next(self.classifier.parameters()).device != device
        ):  # the pipeline was moved after the classifier was loaded
            self.classifier.to(device)
        rows = torch.tensor([b for b, _, _ in flat], device=device)
        first = torch.tensor([p.subject for _, _, p in flat], device=device)
        second = torch.tensor([p.reference for _, _, p in flat], device=device)
        target = torch.tensor([config.classes.index(p.predicate) for _, _, p in flat], device=device)
        both = torch.stack([stacked[rows, first], stacked[rows, second]], dim=1)
        row = config.row(info.noise_level, info.step, info.steps)
        logits = self.classifier(both, torch.full_like(rows, row))
        losses = functional.cross_entropy(logits, target, reduction="none")
        calibrated = functional.cross_entropy(logits / config.temperature(row), target, reduction="none")
        shape = (len(object_pairs), max(len(sample) for sample in object_pairs))
        place = (rows, torch.tensor([r for _, r, _ in flat], device=device))
        loss = losses.new_zeros(shape).index_put(place, losses)
        probability = losses.new_ones(shape).index_put(place, (-calibrated).exp())
        return LossOutput(loss, probability)
