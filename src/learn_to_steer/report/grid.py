"""Pictures in a table: one way to make them a column, one prompt a row."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from learn_to_steer.report.compare import Shown
from learn_to_steer.report.page import SOFT, column, framed, margined, row, shown_size, text

SIDE = 144
LABEL = 150
BORDER = 4


def grid(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Shown]]], side: int = SIDE) -> Image.Image:
    """Rows of pictures, ``side`` pixels large, each under its column's head and beside its row's text.

    Verdicts are their frames.

    Raises ValueError when a row has another number of pictures than there are heads.
    """
    if not rows or any(len(shown) != len(heads) for _, shown in rows):
        raise ValueError(f"every row of a grid needs {len(heads)} pictures, one under each head")
    width = max(shown_size(one.image, side)[0] for _, shown in rows for one in shown) + 2 * BORDER
    lines = [row([text("", LABEL), *(text(head, width, 15, align="center") for head in heads)], gap=8)]
    for label, shown in rows:
        cells = []
        for one in shown:
            picture = framed(one.image, one.correct, shown_size(one.image, side), BORDER)
            cells.append(column([picture, text(one.note, width, 12, SOFT, "center")], gap=2) if one.note else picture)
        lines.append(row([text(label, LABEL, 14), row(cells, gap=8)], gap=8, middle=True))
    return margined(column(lines, gap=8))
