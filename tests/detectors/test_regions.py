"""Connected regions against hand-made masks and a flood fill."""

from __future__ import annotations

import numpy as np
import pytest

from learn_to_steer.detectors.clipseg import label_regions, largest_region


def drawn(text: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in line] for line in text.split()])


def flooded(mask: np.ndarray, diagonal: bool) -> np.ndarray:
    """Regions numbered in reading order, by the plainest means."""
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0) and (diagonal or a == 0 or b == 0)]
    labels = np.zeros(mask.shape, int)
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        number, waiting = labels.max() + 1, [start]
        while waiting:
            y, x = waiting.pop()
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            if inside and mask[y, x] and not labels[y, x]:
                labels[y, x] = number
                waiting += [(y + a, x + b) for a, b in steps]
    return labels


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_regions_are_those_of_a_flood_fill(density, diagonal):
    rng = np.random.default_rng(int(density * 10))
    for shape in ((1, 1), (1, 30), (30, 1), (23, 31)):
        mask = rng.random(shape) < density
        mine, theirs = label_regions(mask, diagonal), flooded(mask, diagonal)
        pairs = {(int(a), int(b)) for a, b in zip(mine.ravel(), theirs.ravel(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert ((mine == 0) == ~mask).all()


def test_corners_connect_and_holes_are_filled():
    ring = drawn("####... #..#... #..#... ####... ....#.. .......")
    region = largest_region(ring)
    assert region.sum() == 17  # the ring's 12, its hole's 4, and the pixel at its corner
    assert region[1, 1] and region[4, 4]


def test_a_ring_is_larger_than_a_bar_of_more_pixels_and_what_lies_in_it_is_its_own():
    mask = drawn("######.#### #....#.#### #.##.#.#### #....#.#### ######.####")
    region = largest_region(mask)
    assert region.sum() == 30 and region[:, :6].all()


def test_a_bay_is_no_hole_and_nothing_is_nothing():
    assert largest_region(drawn("### #.# #.#")).sum() == 7
    assert largest_region(np.zeros((4, 4), bool)) is None
    assert largest_region(np.ones((4, 4), bool)).all()
