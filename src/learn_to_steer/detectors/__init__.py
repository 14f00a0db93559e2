"""Detectors: from a picture to named boxes. One file is one detector; its file name is its name."""
