"""Before anything is scored: does the detector find what is certainly there?"""

from __future__ import annotations

from learn_to_steer.detectors._protocol import Asked
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.score import Judge
from learn_to_steer.geometry import iou

LEAST = 0.6  # intersection over union at which a box is the right one


def require_knowing(judge: Judge) -> None:
    """Raise DataError when the detector misses or misplaces objects of the pictures that its module knows.

    Detectors without known pictures pass: what they can find depends on their weights, and none come with the package.
    Wrong labels and shifted boxes, which look healthy otherwise, are what this is for.
    """
    if judge.known is None:
        return
    pictures = judge.known()
    asked = [Asked(tuple(one.name for one in there)) for _, there in pictures]
    found = judge.detector.detect([picture for picture, _ in pictures], asked)
    lost = [
        one.name
        for (_, there), seen in zip(pictures, found, strict=True)
        for one in there
        if not any(other.name == one.name and iou(other.box, one.box) > LEAST for other in seen)
    ]
    if lost:
        raise DataError(
            f"the detector {judge.detector.name} fails its self-test: it does not find {', '.join(lost)} in pictures "
            f"made for it; its weights or its installation are broken ({dict(judge.detector.identity)}); nothing is "
            "scored"
        )
