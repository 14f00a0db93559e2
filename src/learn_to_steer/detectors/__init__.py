"""Detectors: from a picture to named boxes. One file is one detector; its file name is its name."""

from learn_to_steer.detectors._protocol import Asked, Detector

__all__ = ["Asked", "Detector"]
