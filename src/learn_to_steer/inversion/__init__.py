"""From an image to the noisy latents it could have come from: one file a way, ``invert`` is its function."""

from __future__ import annotations

from learn_to_steer import registry
from learn_to_steer.inversion.base import Inversion, InversionQuality, InversionTask, Observe

__all__ = ["Inversion", "InversionQuality", "InversionTask", "Observe", "load"]


def load(name: str) -> Inversion:
    """Return the inversion called ``name``. Raises UnknownNameError, with the nearest match, when there is none."""
    inversion: Inversion = registry.load("inversion", name).invert
    return inversion
