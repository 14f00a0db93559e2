"""Detectors: from an image to named boxes. One file is one detector; ``base`` says what it offers."""

from learn_to_steer.detectors._loaded import LoadedDetector, run_self_test
from learn_to_steer.detectors.base import Detector, Query

__all__ = ["Detector", "LoadedDetector", "Query", "run_self_test"]
