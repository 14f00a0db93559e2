"""A local Ray for the slow tests of this folder, since its start takes seconds."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def real_ray() -> Iterator[Any]:
    """A local Ray with two places for workers. Without Ray, the tests are skipped."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield importlib.import_module("ray")
    ray.shutdown()
