"""Steerers with random classifiers that fit the tiny pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def steer(random_classifier: Callable[..., Any]) -> Callable[..., Any]:
    """``steer(pipe, depth=None, **settings)``: ``pipe``, steered by a classifier of the first ``depth`` layers.

    Two passes in every step of the first half by default.
    """
    from learn_to_steer.losses.learned import Learned
    from learn_to_steer.steering import Steerer, profile

    def build(pipe: Any, depth: int | None = None, **settings: Any) -> Any:
        config = profile("default").changed(**({"passes": 2, "threshold": 2.0} | settings))
        return Steerer(Learned(random_classifier(pipe, depth).requires_grad_(False)), config).on(pipe)

    return build


@pytest.fixture
def tiny_steerer(tiny_sd: Any, steer: Callable[..., Any]) -> Callable[..., Any]:
    """``tiny_steerer(**settings)``: ``tiny_sd``, or another pipeline of its UNet, steered."""

    def build(pipe: Any = None, **settings: Any) -> Any:
        return steer(pipe or tiny_sd, **settings)

    return build
