"""A steerer with a random classifier that fits ``tiny_sd``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def tiny_steerer(tiny_sd: Any, random_classifier: Callable[..., Any]) -> Callable[..., Any]:
    """``tiny_steerer(**settings)``: a steered ``tiny_sd``; two passes in every step of the first half by default.

    ``pipe`` steers another pipeline of the same UNet.
    """
    from learn_to_steer.objectives.learned import Learned
    from learn_to_steer.steering import Steerer, profile

    classifier = random_classifier(tiny_sd.unet).requires_grad_(False)

    def build(pipe: Any = None, **settings: Any) -> Any:
        config = profile("default").changed(**({"passes": 2, "threshold": 2.0} | settings))
        return Steerer(Learned(classifier), config).on(pipe or tiny_sd)

    return build
