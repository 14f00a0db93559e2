"""The schedule that Attend-and-Excite published and its successors kept."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from learn_to_steer.objectives._protocol import NEVER

# One raw-gradient update before each of the first half of the steps, of size 20 sqrt(linspace(1, 1/2, steps)).
ONE_A_STEP: Mapping[str, Any] = MappingProxyType(
    {
        "by_step_index": True,
        "window": 0.5,
        "passes": 1,
        "total_passes": 10_000,
        "rate": 20.0,
        "decay": 0.5,
        "normalised": False,
        "threshold": NEVER,
    }
)


def published(name: str, **changes: Any) -> Mapping[str, Any]:
    """That schedule under the name of the method, with what the method changes."""
    return MappingProxyType({**ONE_A_STEP, "profile": name, **changes})
