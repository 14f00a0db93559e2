"""From a picture to the noisy latents it could have come from: one file a way, ``invert`` is its function."""

from __future__ import annotations

from learn_to_steer import catalog
from learn_to_steer.inversion._protocol import Inversion, Observe, Quality, Task

__all__ = ["Inversion", "Observe", "Quality", "Task", "load"]


def load(name: str) -> Inversion:
    """The inversion called ``name`` ("noise", "fixed-point", "rf"); raises UnknownNameError with the nearest match."""
    way: Inversion = catalog.load("inversion", name).invert
    return way
