"""Many pictures on one sheet, none left out, each framed by its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from learn_to_steer.report.page import column, framed, margined, row, shown_size

SIDE = 128


def sheet(images: Sequence[Image.Image], correct: Sequence[bool | None], columns: int) -> Image.Image:
    """``images`` in reading order, ``columns`` a row, in green (correct), red or grey frames.

    Raises ValueError when there are no images or not one verdict for each.
    """
    if not images or len(images) != len(correct) or columns < 1:
        raise ValueError(
            f"a sheet needs images, one verdict each and columns, not {len(images)}, {len(correct)}, {columns}"
        )
    cells = [framed(i, c, shown_size(i, SIDE), border=4) for i, c in zip(images, correct, strict=True)]
    return margined(
        column([row(cells[start : start + columns], gap=6) for start in range(0, len(cells), columns)], gap=6)
    )
