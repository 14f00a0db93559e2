"""Pages have the right size, the right frames, and say what they show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from learn_to_steer.report import ObjectMaps, Panel, comparison_page, contact_sheet, draw_maps, image_grid
from learn_to_steer.report.layout import CORRECT, INK, PAPER, UNKNOWN, WRONG, text


def count(page: Image.Image, color: str) -> int:
    return int((np.asarray(page) == ImageColor.getrgb(color)).all(axis=-1).sum())


@pytest.fixture
def image() -> Image.Image:
    return Image.new("RGB", (64, 64), "#3366cc")


def test_frames_are_green_red_or_grey(image):
    base, steered = [Panel(image, False)], [Panel(image, True, "classifier 99% sure")]
    page = comparison_page([("a dog to the left of a cat", base, steered)])
    assert count(page, CORRECT) == count(page, WRONG) > 1000
    assert count(page, UNKNOWN) == 0
    assert count(comparison_page([("a dog", [Panel(image)], [])]), UNKNOWN) > 1000


def test_images_keep_their_shape(image):
    tall = Image.new("RGB", (64, 128), "#3366cc")
    page = comparison_page([("a dog", [Panel(tall, True)], [])])
    assert count(page, "#3366cc") == 256 * 512


def test_page_has_a_white_margin(image):
    pixels = np.asarray(comparison_page([("a dog", [Panel(image, True)], [Panel(image, True)])]))
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
    page = contact_sheet(images, [True, False, None], columns=2)
    cell = 128 + 8
    for color, (x, y) in zip(("#ff0000", "#00ff00", "#0000ff"), ((0, 0), (1, 0), (0, 1)), strict=True):
        left, top = 24 + x * (cell + 6), 24 + y * (cell + 6)
        assert page.getpixel((left + cell // 2, top + cell // 2)) == ImageColor.getrgb(color)
    assert count(page, CORRECT) == count(page, WRONG) == count(page, UNKNOWN) == cell**2 - 128**2
    with pytest.raises(ValueError, match="one value for each image"):
        contact_sheet(images, [True], columns=2)


def test_maps_share_one_scale(image):
    """The one bright place is the brightest colour; maps without it show none of that."""
    values = np.full((1, 2, 2, 16, 16), 1 / 256, dtype=np.float32)
    values[0, 1, 1, 6:10, 6:10] = 8 / 256
    maps = ObjectMaps(("dog", "cat"), (1, 4), values)
    page = draw_maps([("a dog above a cat", maps, [("base", image)])], steps=5)
    bright = (np.asarray(page).astype(int) - (252, 255, 184)).__abs__().max(axis=-1) < 6
    rows, columns = bright.nonzero()
    spot = (rows < page.height - 50) & (columns > 130)
    assert spot.sum() > 100
    # It lies in the second object's row and the second step's column.
    assert rows[spot].min() > page.height / 2
    assert columns[spot].min() > 24 + 130 + 96


def test_a_grid_has_an_image_under_every_head(image):
    rows = [("a dog left of a cat", [Panel(image, False), Panel(image, True)]), ("a bee", [Panel(image)] * 2)]
    page = image_grid(["unsteered", "steered"], rows)
    assert count(page, CORRECT) == count(page, WRONG) > 500 and count(page, UNKNOWN) > 1000
    assert count(page, INK) > 50
    with pytest.raises(ValueError, match="2 images"):
        image_grid(["unsteered", "steered"], [("a dog", [Panel(image)])])


def test_pairs_stand_two_in_a_row(image):
    one, two, three = (comparison_page([("a dog", [Panel(image)] * n, [Panel(image)] * n)]).size for n in (1, 2, 3))
    assert one[1] == two[1] < three[1]
    assert one[0] < two[0] == three[0]


def test_centred_text_has_equal_margins():
    inked = np.nonzero((np.asarray(text("oooo", 201, align="center")) != 255).any(axis=(0, 2)))[0]
    assert abs(inked.min() - (200 - inked.max())) <= 2
    assert np.nonzero((np.asarray(text("oooo", 201)) != 255).any(axis=(0, 2)))[0].min() <= 2


def test_every_map_stands_in_the_row_of_its_image(image):
    values = np.zeros((2, 1, 1, 16, 16), dtype=np.float32)
    values[1] = 1
    maps = ObjectMaps(("dog",), (1,), values)
    page = np.asarray(draw_maps([("a dog", maps, [("base", image), ("steered", image)])], steps=5)).astype(int)
    first_map = slice(24 + 130 + 6, 24 + 130 + 6 + 96)
    bright, dark = (
        (abs(page[:-40, first_map] - color).max(axis=-1) < 6).nonzero()[0] for color in ((252, 255, 184), (13, 8, 35))
    )
    assert len(bright) == len(dark) == 96 * 96
    assert dark.max() < bright.min()  # the second image's map is below the first one's
