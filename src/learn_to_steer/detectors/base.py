"""The interface of a detector: images in, named boxes out.

A detector is one file of this folder, or a module that an installed package registers. It offers:

- ``load(device, source=None) -> Detector``: the detector with its usual weights, or with those of ``source``, a folder
  or hub id;
- ``vocabulary()``: every word that it knows -> the class it reports; None for a detector that looks for any word;
- optionally ``self_test_images()``: a list of images, each with the detections that the detector must report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from learn_to_steer.geometry import Detection

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Query:
    """What to look for in one image.

    Attributes:
        names: The objects, as the prompt names them.
        colors: Whether to report their colours too.
    """

    names: tuple[str, ...]
    colors: bool = False


class Detector(Protocol):
    """Finds named objects in images.

    Attributes:
        name: The detector's name.
        tells_colors: Whether it can report colours, as GenEval's colour tasks need. A colour is one of
            ``vocabulary.COLORS``.
        counting: Detection score above which objects are counted. None: the benchmark's own threshold, which suits
            the benchmark's own detector.
        identity: All that the detections depend on (weights, thresholds), as JSON. Results of detectors with
            different identities are not mixed.
    """

    name: str
    tells_colors: bool
    counting: float | None
    identity: Mapping[str, Any]

    def detect(self, images: Sequence[Image], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find objects.

        Args:
            images: The images.
            queries: What to look for, one query for each image. A detector with a vocabulary ignores the names and
                reports its classes; one without looks for the names and reports them as they are. None: the detector
                reports everything that it knows.

        Returns:
            The detections of each image, highest score first. Scores lie in [0, 1]; boxes are in pixels.

        Raises:
            DataError: The detector has no vocabulary, and a query has no names.
        """
        ...
