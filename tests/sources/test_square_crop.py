"""Cutting squares: objects stay whole, boxes follow, pictures stand upright."""

import numpy as np
import pytest
import torch
from PIL import Image

from learn_to_steer.errors import DataError
from learn_to_steer.image_files import image_size
from learn_to_steer.sources._sampling import SquareCrop, box_in_crop, square_around


@pytest.mark.parametrize("size", [(120, 80), (80, 120), (100, 100), (301, 77)])
def test_the_window_holds_every_box_and_is_the_smallest_change_of_the_centre_crop(size):
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y = (np.sort(rng.uniform(0, length, 2)) for length in size)
        box = (x[0], y[0], x[1], y[1])
        x0, y0, x1, y1 = square_around(size, [box])
        assert x1 - x0 == y1 - y0 >= min(size)
        assert x0 <= box[0] and y0 <= box[1] and x1 >= box[2] and y1 >= box[3]
        if x1 - x0 == min(size):
            assert x0 >= 0 and y0 >= 0 and x1 <= size[0] and y1 <= size[1]
    assert square_around(size, [(size[0] / 2 - 1, size[1] / 2 - 1, size[0] / 2 + 1, size[1] / 2 + 1)])[:2] == (
        (size[0] - min(size)) // 2,
        (size[1] - min(size)) // 2,
    )


@pytest.mark.parametrize("boxes", [[(2, 30, 22, 50), (40, 10, 60, 30)], [(2, 30, 22, 50), (96, 10, 118, 30)]])
def test_boxes_lie_on_their_objects_after_cutting(tmp_path, boxes):
    """The second pair does not fit into a square of the picture's height: it is padded in grey."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1, channel] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    square = square_around((120, 80), boxes)
    side = square[2] - square[0]  # no resizing: exact
    cut = SquareCrop(tmp_path / "a.png", square, side)()
    assert cut.shape == (3, side, side) and cut.dtype == torch.float32
    for channel, box in enumerate(boxes):
        x0, y0, x1, y1 = (int(value) for value in box_in_crop(box, square, side))
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        assert bool((cut[channel][inside] == 1).all())
        assert not bool((cut[channel][~inside] == 1).any())
    grey = (cut - 127 / 255).abs().amax(0) < 1e-6
    assert int(grey.sum()) == side * (side - 80) if side > 80 else not bool(grey.any())
    small = SquareCrop(tmp_path / "a.png", square, 32)()
    assert small.shape == (3, 32, 32) and float(small.min()) >= 0 and float(small.max()) <= 1


def test_pictures_stand_upright(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :10] = 255  # the left edge of what is stored is the top of what is shown
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert image_size(tmp_path / "turned.png") == (40, 60)
    shown = SquareCrop(tmp_path / "turned.png", (0, 0, 40, 40), 40)()
    assert float(shown[:, :9].min()) > 0.99 and float(shown[:, 12:].max()) < 0.01


def test_a_picture_that_went_away_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png can no longer be read"):
        SquareCrop(tmp_path / "gone.png", (0, 0, 8, 8), 8)()
