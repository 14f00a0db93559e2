"""Tidy layouts: upright sprites of two sizes on a grid.

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
TRIES = 2000


def tidied(objects: Sequence[Placed], cells: int) -> tuple[Placed, ...]:
    """``objects`` upright and unmirrored, two or three cells wide, moved to the lines of a grid of ``cells`` squared.

    They may overlap afterwards, see ``apart``. Pictures are square; ``cells`` is at least 3.
    """
    tidy = []
    for placed in objects:
        wide = 2 if placed.size * cells < 2.5 else 3
        corner = [min(max(round(centre * cells - wide / 2), 0), cells - wide) for centre in (placed.x, placed.y)]
        x, y = ((line + wide / 2) / cells for line in corner)
        tidy.append(replace(placed, x=x, y=y, size=wide / cells, angle=0.0, flip=False))
    return tuple(tidy)


def apart(objects: Sequence[Placed]) -> bool:
    """Return whether no two sprites' squares overlap."""
    return all(max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2 - 1e-6 for a, b in combinations(objects, 2))


def arranged(
    draw: Callable[[], tuple[Placed, ...]], cells: int, fits: Callable[[tuple[Placed, ...]], bool] = apart
) -> tuple[Placed, ...]:
    """The first layout of ``draw`` that ``fits`` once it is tidy. Raises DataError when there is none."""
    for _ in range(TRIES):
        objects = tidied(draw(), cells)
        if fits(objects):
            return objects
    raise DataError(f"no layout on a grid of {cells} cells squared fits; ask for fewer objects, or for more cells")
