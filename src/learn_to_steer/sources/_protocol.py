"""What a source of labelled pictures offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from learn_to_steer.geometry import Box

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Pairs = frozenset[frozenset[str]]
EXAMPLES = 3


@dataclass(frozen=True)
class LabelledPicture:
    """A picture of which it is known that ``subject`` is ``predicate`` of ``object``.

    ``predicate`` is a basic one, a diagonal, or the neutral "is" (no clear axis, or one of the two is not there).
    ``boxes`` of subject and object in the picture's pixels, None where the source knows the relation but not the
    places. ``others`` are the names of further objects in it that a prompt may add. ``pixels`` makes the picture when
    it is needed: RGB (3, height, width) in [0, 1].
    """

    id: str
    subject: str
    predicate: str
    object: str
    boxes: tuple[Box, Box] | None
    split: Split
    pixels: Callable[[], Tensor] = field(repr=False, compare=False)
    others: tuple[str, ...] = ()


@dataclass
class Skipped:
    """What a source left out and why: per reason a count and the first few cases.

    A reason begins with the unit that is counted: "file", "line", "picture", "object", "pair" or "class".
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: object, count: int = 1) -> None:
        """Count ``reason`` and remember ``example`` if it is among its first."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append(str(example)[:120].encode(errors="replace").decode())  # JSON may hold half characters

    def as_dict(self) -> dict[str, Any]:
        """``{reason: {"count": ..., "examples": [...]}}``, sorted by reason."""
        return {
            reason: {"count": count, "examples": self.examples[reason]} for reason, count in sorted(self.counts.items())
        }


class Source(Protocol):
    """A module of the folder ``sources``."""

    NOTE: str
    """Where the pictures come from, and their licence."""

    def pictures(
        self,
        limit: int,
        seed: int,
        side: int,
        *,
        diagonals: bool = False,
        data: str | None = None,
        exclude: Pairs = frozenset(),
        skipped: Skipped | None = None,
    ) -> Iterator[LabelledPicture]:
        """At most ``limit`` pictures, ``side`` pixels square; the same ones whenever ``seed`` and files are the same.

        ``data`` is the file that lists the pictures, for sources that read one. Pairs of objects in ``exclude`` are
        left out. ``skipped`` is told of everything left out; it is complete when the iterator is used up. Raises
        DataError at once, before a picture is asked for, for ``data`` that is missing or not wanted; a file that
        cannot be read at all raises it with the first picture.
        """
        ...
