"""What every detector offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from learn_to_steer.geometry import Detection

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Asked:
    """What is to be found in one picture: the objects as its prompt names them, and whether their colours matter."""

    names: tuple[str, ...]
    colors: bool = False


class Detector(Protocol):
    """Finds named objects in pictures. A detector's module offers ``load(device, source=None) -> Detector``, and
    ``vocabulary()``: every word it answers to -> the class it reports; None when it answers to any word. It may offer
    ``known()``: pictures with what is in them, which it must find before it scores anything.

    ``source`` is a folder or hub id of weights in place of the usual ones.
    ``tells_colors`` says whether its detections can carry their colours, as GenEval's colour tasks need; these are
    red, orange, yellow, green, blue, purple, pink, brown, black and white. ``counting`` is the score above which
    objects are counted; None leaves it to the benchmark, whose number is for its own detector's scores. ``identity``
    is everything that decides what it finds (weights, thresholds), as JSON: results of two detectors are not mixed.
    """

    name: str
    tells_colors: bool
    counting: float | None
    identity: Mapping[str, Any]

    def detect(self, pictures: Sequence[Image], asked: Sequence[Asked] | None = None) -> list[list[Detection]]:
        """Detections of each picture: object names, scores in [0, 1], boxes in the picture's pixels.

        ``asked`` is one a picture. A detector with a vocabulary reports its classes' names, whatever was asked; one
        without looks for the names asked, reports them as they are, and raises DataError when there are none.
        """
        ...
