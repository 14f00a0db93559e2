"""What a source of labelled pictures offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from learn_to_steer.geometry import Box

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class LabelledPicture:
    """A picture of which it is known that ``subject`` is ``predicate`` of ``object``.

    ``predicate`` is a basic one, a diagonal, or the neutral "is" (no clear axis). ``boxes`` of subject and object
    in the picture's pixels. ``others`` are the names of further objects in it. ``pixels`` makes the picture when it
    is needed: RGB (3, height, width) in [0, 1].
    """

    id: str
    subject: str
    predicate: str
    object: str
    boxes: tuple[Box, Box]
    split: Split
    pixels: Callable[[], Tensor] = field(repr=False, compare=False)
    others: tuple[str, ...] = ()


class Source(Protocol):
    """A module of the folder ``sources``."""

    NOTE: str
    """Where the pictures come from, and their licence."""

    def pictures(self, limit: int, seed: int, side: int, *, diagonals: bool = False) -> Iterator[LabelledPicture]:
        """The first ``limit`` pictures, ``side`` pixels square; the same ones whenever ``seed`` is the same."""
        ...
