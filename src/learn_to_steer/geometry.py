"""Boxes and the spatial relations between them.

Boxes are ``(x0, y0, x1, y1)`` in any one unit; y grows downward. The rule is GenEval's
(arXiv 2310.11513): centres are compared after taking a margin of the boxes' sizes off their distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
# Predicate -> for every axis it speaks of: the axis (0: x), and whether the subject's centre has the lower value.
SIGNS = {
    "left of": ((0, True),),
    "right of": ((0, False),),
    "above": ((1, True),),
    "below": ((1, False),),
    "above left of": ((1, True), (0, True)),
    "above right of": ((1, True), (0, False)),
    "below left of": ((1, False), (0, True)),
    "below right of": ((1, False), (0, False)),
}
MARGIN = 0.1  # share of the two boxes' summed size taken off the offset of their centres
CLEAR = 0.5  # share of the unrevised offset that must remain along an axis


@dataclass(frozen=True)
class Detection:
    """One object that a detector found: its class, a score in [0, 1], and its box (pixels or any one unit).

    ``color`` is its colour's name, from a detector that tells colours.
    """

    name: str
    score: float
    box: Box
    color: str | None = None


def basic_relations(subject: Box, reference: Box, margin: float = MARGIN) -> frozenset[str]:
    """Basic relations of ``subject`` to ``reference``: none, one, or two of them when diagonal.

    *Source:* GenEval's relative-position rule (margin 0.1, direction threshold 0.5).
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
    found = {
        "left of": dx < -CLEAR,
        "right of": dx > CLEAR,
        "above": dy < -CLEAR,
        "below": dy > CLEAR,
    }
    return frozenset(name for name, true in found.items() if true)


def holds(subject: Box, predicate: str, reference: Box, margin: float = MARGIN) -> bool:
    """Whether ``subject predicate reference``; a diagonal needs both of its basic relations.

    Diagonals have no rule in GenEval; asking for both axes is ours. Between small boxes that leaves the
    directions within 15 degrees of the exact diagonal; the larger the boxes, the fewer, and the farther apart
    they must lie: equal squares at exactly 45 degrees by 0.68 of their side along each axis.
    """
    parts = {"left of": "left of", "right of": "right of", "above": "above", "below": "below"}
    if predicate in parts:
        return predicate in basic_relations(subject, reference, margin)
    if predicate in DIAGONAL:
        vertical, horizontal = predicate.split(" ", 1)
        return {vertical, horizontal} <= basic_relations(subject, reference, margin)
    raise ValueError(f"no geometry is defined for the predicate {predicate!r}")


def on_axis(subject: Box, predicate: str, reference: Box) -> bool:
    """Whether the centres lie on the right side of each other, however little: VISOR's rule (arXiv 2212.10015)."""
    offsets = [(subject[a] + subject[a + 2]) - (reference[a] + reference[a + 2]) for a in (0, 1)]
    return all(offsets[axis] < 0 if lower else offsets[axis] > 0 for axis, lower in SIGNS[predicate])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 when both are empty."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inside = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    return inside / union if union > 0 else 0.0
