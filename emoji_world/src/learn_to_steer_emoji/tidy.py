"""Tidy layouts: upright sprites of a few sizes on a grid.

A transformer whose tokens are the cells of that grid learns them more easily than free layouts: a sprite is then the
same few tokens wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from learn_to_steer.errors import DataError
from learn_to_steer_emoji.scenes import Placed

CELLS = 8  # of flux:emoji: 128 pixels in tokens of 16
WIDTHS = (2, 3)  # of a sprite, in cells
TRIES = 2000


def tidied(objects: Sequence[Placed], cells: int, widths: Sequence[int] = WIDTHS) -> tuple[Placed, ...]:
    """Turn sprites upright, give them the nearest of a few sizes, and move them to the lines of a grid.

    Args:
        objects: Sprites of a square picture.
        cells: The grid has this many cells a side; no fewer than the largest of ``widths``.
        widths: The sizes allowed, in cells.

    Returns:
        The sprites, unmirrored. They may overlap, see ``apart``.
    """
    tidy = []
    for placed in objects:
        wide = _nearest(placed.size * cells, widths)
        corner = [min(max(round(centre * cells - wide / 2), 0), cells - wide) for centre in (placed.x, placed.y)]
        x, y = ((line + wide / 2) / cells for line in corner)
        tidy.append(replace(placed, x=x, y=y, size=wide / cells, angle=0.0, flip=False))
    return tuple(tidy)


def _nearest(size: float, widths: Sequence[int]) -> int:
    """The width closest to ``size``; of two as close, the larger."""
    return min(widths, key=lambda width: (abs(width - size), -width))


def apart(objects: Sequence[Placed]) -> bool:
    """Return whether no two sprites' squares overlap."""
    return all(max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2 - 1e-6 for a, b in combinations(objects, 2))


def arranged(
    draw: Callable[[], tuple[Placed, ...]],
    cells: int,
    fits: Callable[[tuple[Placed, ...]], bool] = apart,
    widths: Sequence[int] = WIDTHS,
) -> tuple[Placed, ...]:
    """Draw layouts until one fits once it is tidy.

    Args:
        draw: Draws a layout that need not be tidy.
        cells: See ``tidied``.
        fits: Whether a tidy layout will do.
        widths: See ``tidied``.

    Returns:
        The first tidy layout that fits.

    Raises:
        DataError: There is none in many tries.
    """
    for _ in range(TRIES):
        objects = tidied(draw(), cells, widths)
        if fits(objects):
            return objects
    raise DataError(f"no layout on a grid of {cells} cells squared fits; ask for fewer objects, or for more cells")
