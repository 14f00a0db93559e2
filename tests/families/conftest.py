"""Fixtures for the tests of model families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer, profile


@pytest.fixture
def steer(random_classifier: Callable[..., Any]) -> Callable[..., Any]:
    """Steers a tiny pipeline by a random classifier, with moves so large that they show and a goal never reached."""

    def build(pipe: Any, depth: int | None = None, **settings: Any) -> Any:
        config = profile("default").changed(**({"passes": 1, "threshold": 2.0, "step_size": 1.0} | settings))
        return Steerer(Learned(random_classifier(pipe, depth).requires_grad_(False)), config).on(pipe)

    return build
