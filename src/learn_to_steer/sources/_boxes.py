"""Boxes as files have them: read, checked, clipped."""

from __future__ import annotations

from typing import Any

from learn_to_steer.geometry import Box

OUTSIDE = 2.0  # pixels that a box may reach over the picture's edge: rounding; it is clipped


def from_corner(x: Any, y: Any, width: Any, height: Any) -> list[Any]:
    """A box given by its corner and size as (x0, y0, x1, y1); what are no numbers stay and are found broken."""
    if all(_is_number(value) for value in (x, y, width, height)):
        return [x, y, x + width, y + height]
    return [x, y, width, height, "not four numbers"]


def picture_shape(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height as annotated, None where they are no sizes."""
    if all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in (width, height)):
        return width, height
    return None


def checked(values: Any) -> Box | None:
    """Four finite numbers with x0 < x1 and y0 < y1."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        return None
    if not all(_is_number(value) for value in values):
        return None
    x0, y0, x1, y1 = (float(value) for value in values)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def clipped(box: Box, size: tuple[int, int]) -> Box | None:
    """``box`` within the picture; None when it reaches out by more than rounding explains."""
    width, height = size
    x0, y0, x1, y1 = box
    if x0 < -OUTSIDE or y0 < -OUTSIDE or x1 > width + OUTSIDE or y1 > height + OUTSIDE:
        return None
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    return inside if inside[0] < inside[2] and inside[1] < inside[3] else None


def area(box: Box) -> float:
    """The area of a box, in the square of its unit."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_number(value: Any) -> bool:
    """Finite, and small enough to be counted in pixels."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
