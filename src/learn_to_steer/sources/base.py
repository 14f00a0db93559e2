"""What a source of labelled images must offer.

A source is a module with a constant ``NOTE`` and a function ``images``::

    NOTE = "where the images come from, and their licence"

    def images(request: SourceRequest) -> LabelledImages: ...

A source whose pictures the model draws itself has a function ``planned``, too, which is used instead::

    def planned(request: SourceRequest) -> list[PlannedPicture]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from learn_to_steer.geometry import NEUTRAL, Box
from learn_to_steer.prompts import indefinite_article, phrase

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
NamePairs = frozenset[frozenset[str]]
EXAMPLES = 3


@dataclass(frozen=True)
class LabelledImage:
    """An image in which the relation of two objects is known: ``subject`` is ``predicate`` ``object``."""

    id: str
    """Unique within the source. The seeds of its noise and prompts depend on it."""
    subject: str
    predicate: str
    """A basic relation, a diagonal, or the neutral "is": neither axis is clear, or one of the objects is missing."""
    object: str
    boxes: tuple[Box, Box] | None
    """Boxes of subject and object in pixels of the image; None where the source does not know them."""
    split: Split
    pixels: Callable[[], Float[Tensor, "3 height width"]] = field(repr=False, compare=False)
    """Loads or renders the image: RGB in [0, 1]."""
    others: tuple[str, ...] = ()
    """Names of further objects in the image, which a prompt may add."""


@dataclass
class SkipLog:
    """What a source skipped: a count and the first few examples for each reason.

    A reason begins with the unit that is counted: "file", "line", "picture" (an image), "object", "pair" or "class".
    Reasons are written to the manifest of a collection, so their words stay as they are.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: object, count: int = 1) -> None:
        """Count a reason, and keep the first ``EXAMPLES`` examples of it.

        Args:
            reason: The reason, beginning with a unit: "picture: file is missing".
            example: What was skipped.
            count: How often.
        """
        self.counts[reason] = self.counts.get(reason, 0) + count
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append(str(example)[:120].encode(errors="replace").decode())  # JSON may contain lone surrogates

    def as_dict(self) -> dict[str, Any]:
        """Return ``{reason: {"count": ..., "examples": [...]}}``, sorted by reason."""
        return {
            reason: {"count": count, "examples": self.examples[reason]} for reason, count in sorted(self.counts.items())
        }


@dataclass(frozen=True)
class SourceRequest:
    """Which images are wanted of a source."""

    limit: int
    """The largest number of images."""
    seed: int
    """The same seed and files give the same images."""
    resolution: int
    """Width and height of the images in pixels."""
    diagonals: bool = False
    """Whether the four diagonals are relations of their own."""
    data: str | None = None
    """Path of the annotation file, for sources that read one."""
    exclude: NamePairs = frozenset()
    """Pairs of object names to leave out."""
    objects: tuple[str, ...] = ()
    """Names of the objects to draw, for sources whose pictures the model draws."""


@dataclass(frozen=True)
class PlannedPicture:
    """A picture that a model is to draw. Its prompt names objects in a row, each joined to the next one."""

    id: str
    """Unique within the plan. The seed of its noise depends on it."""
    objects: tuple[str, ...]
    """The names, two or more, no two alike."""
    joins: tuple[str, ...]
    """What joins each object to the next: a relation, or "is" for the word "and"."""
    split: Split
    further: tuple[tuple[int, int], ...] = ()
    """Pairs of objects, by index, that are labelled beside the joined ones."""

    @property
    def pairs(self) -> tuple[tuple[int, int, str], ...]:
        """The indices of two objects and what the prompt says of them, for every pair that is labelled."""
        joined = ((n, n + 1, join) for n, join in enumerate(self.joins))
        return (*joined, *((first, second, NEUTRAL) for first, second in self.further))

    def prompt(self) -> tuple[str, list[tuple[int, int]]]:
        """Return the prompt, and the character offsets (start, end) of each object's name in it."""
        text, spans = "", []
        for name, join in zip(self.objects, ("", *self.joins), strict=True):
            word = " and " if join == NEUTRAL else f" {phrase(join)} " if join else ""
            text += f"{word}{indefinite_article(name)} "
            spans.append((len(text), len(text) + len(name)))
            text += name
        return text, spans


@dataclass(frozen=True)
class LabelledImages:
    """The images of a request, to be iterated over once, and a log of what was skipped."""

    images: Iterator[LabelledImage]
    skipped: SkipLog = field(default_factory=SkipLog)
    """Complete when ``images`` is exhausted."""

    def __iter__(self) -> Iterator[LabelledImage]:
        return self.images


class Source(Protocol):
    """A module of ``learn_to_steer.sources``, or one that an installed package registers."""

    NOTE: str
    """Where the images come from, and their licence."""

    def images(self, request: SourceRequest) -> LabelledImages:
        """Return the images of a request; they are read or rendered only while they are iterated over.

        Args:
            request: Which images are wanted.

        Returns:
            The images, ``request.resolution`` pixels wide and high, and a log of what was skipped.

        Raises:
            DataError: ``data`` is missing, or given to a source that reads none. Raised with the first image: the
                file cannot be read.
        """
        ...


class DrawingSource(Protocol):
    """A source whose pictures the model draws itself."""

    NOTE: str
    """Where the images come from, and their licence."""

    def planned(self, request: SourceRequest) -> list[PlannedPicture]:
        """Return the pictures to draw. They depend on the request alone.

        Args:
            request: Which pictures are wanted; ``objects`` are the names to choose from.

        Raises:
            DataError: No two of the objects may come together.
        """
        ...

    def common_objects(self) -> tuple[str, ...]:
        """Return the objects that are drawn where neither the user nor the model names any."""
        ...

    def read_objects(self, path: str) -> tuple[str, ...]:
        """Return the objects that the user's file names.

        Args:
            path: The file.

        Raises:
            DataError: It cannot be read, or does not name objects.
        """
        ...
