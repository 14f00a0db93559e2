"""Inversion: from an image to noisy latents from which it could have been generated. One module per method."""

from __future__ import annotations

from learn_to_steer import registry
from learn_to_steer.inversion.base import Inversion, InversionQuality, InversionTask, Observe

__all__ = ["Inversion", "InversionQuality", "InversionTask", "Observe", "load"]


def load(name: str) -> Inversion:
    """Return the function ``invert`` of an inversion.

    Args:
        name: The name of the inversion, such as "fixed-point".

    Raises:
        UnknownNameError: There is no such inversion; the message names the nearest match.
    """
    inversion: Inversion = registry.load("inversion", name).invert
    return inversion
