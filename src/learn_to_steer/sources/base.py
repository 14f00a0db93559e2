"""What a source of labelled images must offer.

A source is a module with a constant ``NOTE`` and a function ``images``::

    NOTE = "where the images come from, and their licence"

    def images(request: SourceRequest) -> LabelledImages: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from learn_to_steer.geometry import Box

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
NamePairs = frozenset[frozenset[str]]
EXAMPLES = 3


@dataclass(frozen=True)
class LabelledImage:
    """An image in which ``subject`` is known to be ``predicate`` of ``object``."""

    id: str
    """Unique within the source. Noise and prompts are drawn from it."""
    subject: str
    predicate: str
    """A basic relation, a diagonal, or the neutral "is": no clear axis, or one of the two objects is missing."""
    object: str
    boxes: tuple[Box, Box] | None
    """Boxes of subject and object in pixels of the image; None where the source does not know them."""
    split: Split
    pixels: Callable[[], Float[Tensor, "3 height width"]] = field(repr=False, compare=False)
    """Makes the image when it is needed: RGB in [0, 1]."""
    others: tuple[str, ...] = ()
    """Names of further objects in the image, which a prompt may add."""


@dataclass
class SkipLog:
    """What a source left out and why: a count and the first few examples for each reason.

    A reason begins with the unit that is counted: "file", "line", "picture", "object", "pair" or "class".
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: object, count: int = 1) -> None:
        """Count ``reason``, and keep ``example`` if it is among the first ``EXAMPLES``."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append(str(example)[:120].encode(errors="replace").decode())  # JSON may hold half characters

    def as_dict(self) -> dict[str, Any]:
        """Return ``{reason: {"count": ..., "examples": [...]}}``, sorted by reason."""
        return {
            reason: {"count": count, "examples": self.examples[reason]} for reason, count in sorted(self.counts.items())
        }


@dataclass(frozen=True)
class SourceRequest:
    """Which images are wanted of a source."""

    limit: int
    """At most this many images."""
    seed: int
    """The same seed and files give the same images."""
    resolution: int
    """Width and height of the images in pixels."""
    diagonals: bool = False
    """Whether the four diagonals are relations of their own."""
    data: str | None = None
    """The file that lists the images, for sources that read one."""
    exclude: NamePairs = frozenset()
    """Pairs of object names that are left out."""


@dataclass(frozen=True)
class LabelledImages:
    """The images of a request, to be iterated over once, and what was left out on the way."""

    images: Iterator[LabelledImage]
    skipped: SkipLog = field(default_factory=SkipLog)
    """Complete when ``images`` is exhausted."""

    def __iter__(self) -> Iterator[LabelledImage]:
        return self.images


class Source(Protocol):
    """A module of the folder ``sources``, or one that an installed package registers."""

    NOTE: str
    """Where the images come from, and their licence."""

    def images(self, request: SourceRequest) -> LabelledImages:
        """Start on the images of ``request``; nothing is decoded or drawn before it is iterated over.

        Args:
            request: Which images are wanted.

        Returns:
            The images, ``request.resolution`` pixels square, and a log of what was left out.

        Raises:
            DataError: At once, for ``data`` that is missing or not wanted; with the first image, for a file that
                cannot be read at all.
        """
        ...
