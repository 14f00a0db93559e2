"""Labelled pictures to learn from: one file a source, the file name is the source's name."""

from learn_to_steer.sources._protocol import LabelledPicture, Pairs, Skipped, Source, Split

__all__ = ["LabelledPicture", "Pairs", "Skipped", "Source", "Split"]
