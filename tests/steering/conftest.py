"""A steerer with a random classifier that fits ``tiny_sd``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def tiny_steerer(tiny_sd: Any) -> Callable[..., Any]:
    """``tiny_steerer(**settings)``: a steered ``tiny_sd``; two passes in every step of the first half by default."""
    import torch

    from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
    from learn_to_steer.families.sd import FAMILY
    from learn_to_steer.objectives.learned import Learned
    from learn_to_steer.steering import Steerer, profile

    layout = FAMILY.layout(tiny_sd.unet)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        classifier = RelationClassifier(
            ClassifierConfig(
                classes=("above", "below", "is", "left of", "right of"),
                channels=layout.channels,
                times=3,
                levels=(1.0, 0.9, 0.8),
                width=32,
                layers=1,
                hidden=32,
                head_layers=1,
                head_hidden=32,
                layout=layout.as_dict(),
            )
        ).eval()

    def build(**settings: Any) -> Any:
        config = profile("default").changed(**({"passes": 2, "threshold": 2.0} | settings))
        return Steerer(Learned(classifier.requires_grad_(False)), config).on(tiny_sd)

    return build
