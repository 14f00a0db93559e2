"""Connected regions of a mask, without OpenCV."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The largest region of ``mask`` (H, W), pixels touching at corners included and holes filled; None of nothing.

    It is what OpenCV calls the largest external contour, but for the measure of "largest": here pixels are counted,
    OpenCV takes the area of the polygon through the border pixels' centres, which is smaller by about half
    the border's length. That can turn the order of two regions of nearly the same size, or of a compact and a thin one.
    """
    if not mask.any():
        return None
    ground = label_regions(np.pad(~mask, 1, constant_values=True), diagonal=False)
    filled = (ground != ground[0, 0])[1:-1, 1:-1]  # all that the ground around the picture does not reach
    labels = label_regions(filled, diagonal=True)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def label_regions(mask: NDArray[np.bool_], diagonal: bool) -> NDArray[np.int64]:
    """(H, W): 0 outside of ``mask``, else the number of its region from 1; ``diagonal``: corners connect as well."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    begins, stops = np.nonzero(edges == 1), np.nonzero(edges == -1)
    rows, starts, ends = begins[0].tolist(), begins[1].tolist(), stops[1].tolist()
    root = list(range(len(rows)))

    def find(run: int) -> int:
        while root[run] != run:
            root[run] = root[root[run]]
            run = root[run]
        return run

    # Horizontal runs, row by row; ``first`` is the first run of the row above that may still touch.
    first, reach = 0, int(diagonal)
    for run, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        while rows[first] < row - 1 or (rows[first] == row - 1 and ends[first] + reach <= start):
            first += 1
        above = first
        while rows[above] == row - 1 and starts[above] < end + reach:
            root[find(above)] = find(run)
            above += 1
    labels = np.zeros(mask.shape, dtype=np.int64)
    numbers = np.unique([find(run) for run in range(len(root))], return_inverse=True)[1] + 1
    labels[mask] = np.repeat(numbers, stops[1] - begins[1])  # a mask's pixels come run by run
    return labels
