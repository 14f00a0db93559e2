"""The interface of a detector: images in, named boxes out.

A detector is one file of this folder, or a module that an installed package registers. It offers:

- ``load(device, source=None) -> Detector``: the detector with its usual weights, or with those of ``source``, a folder
  or hub id;
- ``vocabulary()``: every word that it answers to -> the class it reports; None when it answers to any word;
- optionally ``self_test_images()``: images with what is in them, which it must find before it scores anything.
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
        colors: Whether their colours matter.
    """

    names: tuple[str, ...]
    colors: bool = False


class Detector(Protocol):
    """Finds named objects in images.

    Attributes:
        name: The detector's name.
        tells_colors: Whether detections can carry a colour, one of ``vocabulary.COLORS``, as GenEval's colour tasks
            need.
        counting: Detection score above which objects are counted; None for the benchmark's own, which is made for
            its own detector.
        identity: Everything that decides what it finds (weights, thresholds), as JSON. Results of detectors with
            different identities are not mixed.
    """

    name: str
    tells_colors: bool
    counting: float | None
    identity: Mapping[str, Any]

    def detect(self, pictures: Sequence[Image], asked: Sequence[Query] | None = None) -> list[list[Detection]]:
        """Find objects.

        Args:
            pictures: The images.
            asked: What to look for in each image. A detector with a vocabulary ignores the names and reports its
                classes; one without looks for the names and reports them as they are.

        Returns:
            Detections of each image, best first: names, scores in [0, 1], boxes in pixels.

        Raises:
            DataError: A detector without a vocabulary is given no names.
        """
        ...
