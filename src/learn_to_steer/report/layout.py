"""The parts of a page: wrapped text, framed images, rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from learn_to_steer.plain_text import one_line

INK, SOFT, PAPER = "#1b1f24", "#5f6b76", "#ffffff"
CORRECT, WRONG, UNKNOWN = "#2f9e44", "#d6336c", "#c4cbd2"
MARGIN = 24
Align = Literal["left", "center"]


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all pages at ``size`` pixels."""
    return ImageFont.load_default(size)


def text(words: str, width: int, size: int = 15, color: str = INK, align: Align = "left") -> Image.Image:
    """Write text on a strip.

    Args:
        words: The text; words that are longer than a line are split.
        width: Width of the strip in pixels, at which lines are wrapped.
        size: Height of the font in pixels.
        color: Colour of the font.
        align: Whether lines are flush left or centred.

    Returns:
        The strip, as high as the lines need.
    """
    lines = _wrap(words, width, size)
    height = round(size * 1.4)
    strip = Image.new("RGB", (width, height * len(lines)), PAPER)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        left = (width - font(size).getlength(line)) / 2 if align == "center" else 0
        draw.text((left, number * height + size * 0.15), line, fill=color, font=font(size))
    return strip


def framed(image: Image.Image, correct: bool | None, size: tuple[int, int], border: int = 5) -> Image.Image:
    """Resize an image and put it in a frame.

    Args:
        image: The image.
        correct: Whether the image is correct (green frame) or not (red); None if it was not scored (grey).
        size: Width and height of the resized image in pixels.
        border: Width of the frame in pixels.

    Returns:
        The framed image.
    """
    color = UNKNOWN if correct is None else CORRECT if correct else WRONG
    width, height = size
    frame = Image.new("RGB", (width + 2 * border, height + 2 * border), color)
    frame.paste(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), (border, border))
    return frame


def column(pieces: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Stack images vertically, flush left, ``gap`` pixels apart."""
    width = max(piece.width for piece in pieces)
    page = Image.new("RGB", (width, sum(piece.height for piece in pieces) + gap * (len(pieces) - 1)), PAPER)
    top = 0
    for piece in pieces:
        page.paste(piece, (0, top))
        top += piece.height + gap
    return page


def row(pieces: Sequence[Image.Image], gap: int = 12, middle: bool = False) -> Image.Image:
    """Put images side by side, ``gap`` pixels apart, flush at the top or, with ``middle``, vertically centred."""
    height = max(piece.height for piece in pieces)
    page = Image.new("RGB", (sum(piece.width for piece in pieces) + gap * (len(pieces) - 1), height), PAPER)
    left = 0
    for piece in pieces:
        page.paste(piece, (left, (height - piece.height) // 2 if middle else 0))
        left += piece.width + gap
    return page


def with_margin(page: Image.Image, margin: int = MARGIN) -> Image.Image:
    """Add a white margin of ``margin`` pixels on every side."""
    larger = Image.new("RGB", (page.width + 2 * margin, page.height + 2 * margin), PAPER)
    larger.paste(page, (margin, margin))
    return larger


def scaled_size(image: Image.Image, side: int = 256) -> tuple[int, int]:
    """Width and height of ``image`` once its shorter side is ``side`` pixels long."""
    factor = side / min(image.size)
    return round(image.width * factor), round(image.height * factor)


def _wrap(words: str, width: int, size: int) -> list[str]:
    lines = [""]
    for word in one_line(words).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font(size).getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font(size).getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
