"""Sources of labelled images. Every module of this package is one source; its name is the source's name."""

from learn_to_steer.sources.base import (
    SPLITS,
    DrawingSource,
    LabelledImage,
    LabelledImages,
    NamePairs,
    PlannedPicture,
    SkipLog,
    Source,
    SourceRequest,
    Split,
)

__all__ = [
    "SPLITS",
    "DrawingSource",
    "LabelledImage",
    "LabelledImages",
    "NamePairs",
    "PlannedPicture",
    "SkipLog",
    "Source",
    "SourceRequest",
    "Split",
]
