"""Pages have the right size, the right frames, and say what they show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from learn_to_steer.report import ObjectMaps, Shown, compare, draw_maps, grid, sheet
from learn_to_steer.report.page import INK, PAPER, RIGHT, UNKNOWN, WRONG, text


def count(page: Image.Image, color: str) -> int:
    return int((np.asarray(page) == ImageColor.getrgb(color)).all(axis=-1).sum())


@pytest.fixture
def picture() -> Image.Image:
    return Image.new("RGB", (64, 64), "#3366cc")


def test_frames_are_green_red_or_grey(picture):
    base, steered = [Shown(picture, False)], [Shown(picture, True, "classifier 99% sure")]
    page = compare([("a dog to the left of a cat", base, steered)])
    assert count(page, RIGHT) == count(page, WRONG) > 1000
    assert count(page, UNKNOWN) == 0
    assert count(compare([("a dog", [Shown(picture)], [])]), UNKNOWN) > 1000


def test_pictures_keep_their_shape(picture):
    tall = Image.new("RGB", (64, 128), "#3366cc")
    page = compare([("a dog", [Shown(tall, True)], [])])
    assert count(page, "#3366cc") == 256 * 512


def test_page_has_a_white_margin(picture):
    pixels = np.asarray(compare([("a dog", [Shown(picture, True)], [Shown(picture, True)])]))
    for edge in (pixels[:20], pixels[-20:], pixels[:, :20], pixels[:, -20:]):
        assert (edge == 255).all()


def test_text_wraps_inside_its_width():
    one, many = text("a dog", 200), text("a dog to the left of a teddy bear " * 3, 200)
    assert many.height >= 3 * one.height
    assert many.width == 200
    broken = text("x" * 200, 100)
    assert broken.height > 10 * one.height
    # The last pixel column is never touched: nothing is cut off.
    assert count(broken.crop((99, 0, 100, broken.height)), PAPER) == broken.height
    assert count(one, INK) > 0


def test_sheet_shows_every_image_in_reading_order():
    images = [Image.new("RGB", (16, 16), color) for color in ("#ff0000", "#00ff00", "#0000ff")]
    page = sheet(images, [True, False, None], columns=2)
    cell = 128 + 8
    for color, (x, y) in zip(("#ff0000", "#00ff00", "#0000ff"), ((0, 0), (1, 0), (0, 1)), strict=True):
        left, top = 24 + x * (cell + 6), 24 + y * (cell + 6)
        assert page.getpixel((left + cell // 2, top + cell // 2)) == ImageColor.getrgb(color)
    assert count(page, RIGHT) == count(page, WRONG) == count(page, UNKNOWN) == cell**2 - 128**2
    with pytest.raises(ValueError, match="verdict"):
        sheet(images, [True], columns=2)


def test_maps_share_one_scale(picture):
    """The one bright place is the brightest colour; maps without it show none of that."""
    values = np.full((1, 2, 2, 16, 16), 1 / 256, dtype=np.float32)
    values[0, 1, 1, 6:10, 6:10] = 8 / 256
    maps = ObjectMaps(("dog", "cat"), (1, 4), values)
    page = draw_maps([("a dog above a cat", maps, [("base", picture)])], total=5)
    bright = (np.asarray(page).astype(int) - (252, 255, 184)).__abs__().max(axis=-1) < 6
    rows, columns = bright.nonzero()
    spot = (rows < page.height - 50) & (columns > 130)
    assert spot.sum() > 100
    # It lies in the second object's row and the second step's column.
    assert rows[spot].min() > page.height / 2
    assert columns[spot].min() > 24 + 130 + 96


def test_a_grid_has_a_picture_under_every_head(picture):
    rows = [("a dog left of a cat", [Shown(picture, False), Shown(picture, True)]), ("a bee", [Shown(picture)] * 2)]
    page = grid(["unsteered", "steered"], rows)
    assert count(page, RIGHT) == count(page, WRONG) > 500 and count(page, UNKNOWN) > 1000
    assert count(page, INK) > 50
    with pytest.raises(ValueError, match="2 pictures"):
        grid(["unsteered", "steered"], [("a dog", [Shown(picture)])])
