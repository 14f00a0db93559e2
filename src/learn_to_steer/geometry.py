"""Boxes and the spatial relations between them.

A box is ``(x0, y0, x1, y1)`` in any unit; y grows downward. Relations are decided by GenEval's rule (arXiv 2310.11513;
djghosh13/geneval, ``evaluation/evaluate_images.py``): a margin relative to the sizes of the boxes is subtracted from
the offset of their centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Box = Sequence[float]

BASIC = ("above", "below", "left of", "right of")
DIAGONAL = ("above left of", "above right of", "below left of", "below right of")
NEUTRAL = "is"
OPPOSITE = {
    "above": "below",
    "below": "above",
    "left of": "right of",
    "right of": "left of",
    "above left of": "below right of",
    "below right of": "above left of",
    "above right of": "below left of",
    "below left of": "above right of",
    NEUTRAL: NEUTRAL,
}
# Predicate -> for each axis that it constrains: the axis (0: x, 1: y), whether the subject has the smaller coordinate.
DIRECTIONS = {
    "left of": ((0, True),),
    "right of": ((0, False),),
    "above": ((1, True),),
    "below": ((1, False),),
    "above left of": ((1, True), (0, True)),
    "above right of": ((1, True), (0, False)),
    "below left of": ((1, False), (0, True)),
    "below right of": ((1, False), (0, False)),
}
MARGIN = 0.1  # fraction of the boxes' summed size that is subtracted from the offset of their centres
CLEAR = 0.5  # fraction of the distance of the centres that must remain along an axis


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        name: Its class.
        score: The detector's score, in [0, 1].
        box: Its box, in pixels or any other unit.
        color: The name of its colour; None from a detector that does not classify colours.
    """

    name: str
    score: float
    box: Box
    color: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is written into files: rounded, and with the colour if there is one."""
        color = {"color": self.color} if self.color else {}
        box = [round(float(edge), 2) for edge in self.box]
        return {"name": self.name, "score": round(self.score, 4), **color, "box": box}


def basic_relations(subject: Box, reference: Box, margin: float = MARGIN) -> frozenset[str]:
    """Find the basic relations that hold between two boxes, by GenEval's rule (margin 0.1, direction threshold 0.5).

    Args:
        subject: Box of the subject.
        reference: Box of the reference.
        margin: Fraction of the boxes' summed size that is subtracted from the offset of their centres.

    Returns:
        No, one or two of ``BASIC``; two if the subject lies diagonally.
    """
    offsets = []
    revised = []
    for axis in (0, 1):
        offset = (subject[axis] + subject[axis + 2] - reference[axis] - reference[axis + 2]) / 2
        sizes = subject[axis + 2] - subject[axis] + reference[axis + 2] - reference[axis]
        offsets.append(offset)
        revised.append(math.copysign(max(abs(offset) - margin * sizes, 0.0), offset))
    if all(abs(value) < 1e-3 for value in revised):
        return frozenset()
    length = math.hypot(*offsets)
    dx, dy = revised[0] / length, revised[1] / length
    conditions = {
        "left of": dx < -CLEAR,
        "right of": dx > CLEAR,
        "above": dy < -CLEAR,
        "below": dy > CLEAR,
    }
    return frozenset(name for name, true in conditions.items() if true)


def label_of(subject: Box, reference: Box, diagonals: bool = False) -> str:
    """Name the one relation of two boxes, as data are labelled.

    Args:
        subject: Box of the subject.
        reference: Box of the reference.
        diagonals: Whether diagonals are relations of their own.

    Returns:
        The relation, by GenEval's rule; "is" if neither axis is clear or, without ``diagonals``, if both are.
    """
    holding = basic_relations(subject, reference)
    if len(holding) == 1:
        return next(iter(holding))
    if holding and diagonals:
        return " ".join(sorted(holding, key=BASIC.index))
    return NEUTRAL


def holds(subject: Box, predicate: str, reference: Box, margin: float = MARGIN) -> bool:
    """Decide whether a relation holds between two boxes, by GenEval's rule.

    GenEval has no diagonals; here a diagonal holds if both of its basic relations hold. For small boxes these are the
    directions within 15 degrees of the exact diagonal. For larger boxes the range is narrower, and the boxes must lie
    farther apart: two equal squares at exactly 45 degrees by 0.68 of their side along each axis.

    Args:
        subject: Box of the subject.
        predicate: A basic or diagonal predicate.
        reference: Box of the reference.
        margin: As in ``basic_relations``.

    Returns:
        Whether ``subject predicate reference``.

    Raises:
        ValueError: The predicate is neither basic nor diagonal.
    """
    if predicate in BASIC:
        return predicate in basic_relations(subject, reference, margin)
    if predicate in DIAGONAL:
        vertical, horizontal = predicate.split(" ", 1)
        return {vertical, horizontal} <= basic_relations(subject, reference, margin)
    raise ValueError(f"no rule is defined for the predicate {predicate!r}; use one of {', '.join(DIRECTIONS)}")


def on_axis(subject: Box, predicate: str, reference: Box) -> bool:
    """Decide whether a relation holds between the centres of two boxes, without a margin: VISOR's rule.

    Source: VISOR, arXiv 2212.10015.

    Args:
        subject: Box of the subject.
        predicate: A basic or diagonal predicate.
        reference: Box of the reference.

    Returns:
        Whether the subject's centre lies on the predicate's side along each of its axes.
    """
    offsets = [(subject[a] + subject[a + 2]) - (reference[a] + reference[a + 2]) for a in (0, 1)]
    return all(offsets[axis] < 0 if lower else offsets[axis] > 0 for axis, lower in DIRECTIONS[predicate])


def iou(a: Box, b: Box) -> float:
    """Compute the intersection over union of two boxes.

    Args:
        a: One box.
        b: The other box.

    Returns:
        A value in [0, 1]; 0 if both boxes are empty.
    """
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    intersection = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union if union > 0 else 0.0
