"""Bricks of every page: text that wraps, frames that say right or wrong, pieces in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

INK, SOFT, PAPER = "#1b1f24", "#5f6b76", "#ffffff"
RIGHT, WRONG, UNKNOWN = "#2f9e44", "#d6336c", "#c4cbd2"
MARGIN = 24
Align = Literal["left", "center"]


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text(words: str, width: int, size: int = 15, color: str = INK, align: Align = "left") -> Image.Image:
    """``words`` wrapped at ``width`` pixels, as a strip of that width; long words are broken."""
    lines = _wrap(words, width, size)
    height = round(size * 1.4)
    strip = Image.new("RGB", (width, height * len(lines)), PAPER)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        left = (width - font(size).getlength(line)) / 2 if align == "center" else 0
        draw.text((left, number * height + size * 0.15), line, fill=color, font=font(size))
    return strip


def framed(picture: Image.Image, correct: bool | None, size: tuple[int, int], border: int = 5) -> Image.Image:
    """``picture`` at ``size`` (width, height), in a green frame when correct, red when wrong, grey when unknown."""
    color = UNKNOWN if correct is None else RIGHT if correct else WRONG
    width, height = size
    frame = Image.new("RGB", (width + 2 * border, height + 2 * border), color)
    frame.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), (border, border))
    return frame


def column(pieces: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Pieces below each other, flush left, on paper."""
    width = max(piece.width for piece in pieces)
    page = Image.new("RGB", (width, sum(piece.height for piece in pieces) + gap * (len(pieces) - 1)), PAPER)
    top = 0
    for piece in pieces:
        page.paste(piece, (0, top))
        top += piece.height + gap
    return page


def row(pieces: Sequence[Image.Image], gap: int = 12, middle: bool = False) -> Image.Image:
    """Pieces beside each other, on paper, flush at the top or centred."""
    height = max(piece.height for piece in pieces)
    page = Image.new("RGB", (sum(piece.width for piece in pieces) + gap * (len(pieces) - 1), height), PAPER)
    left = 0
    for piece in pieces:
        page.paste(piece, (left, (height - piece.height) // 2 if middle else 0))
        left += piece.width + gap
    return page


def margined(page: Image.Image, margin: int = MARGIN) -> Image.Image:
    """The page with white around it."""
    sheet = Image.new("RGB", (page.width + 2 * margin, page.height + 2 * margin), PAPER)
    sheet.paste(page, (margin, margin))
    return sheet


def shown_size(picture: Image.Image, side: int = 256) -> tuple[int, int]:
    """The size to show a picture at: its shorter side ``side`` pixels, its shape kept."""
    factor = side / min(picture.size)
    return round(picture.width * factor), round(picture.height * factor)


def _wrap(words: str, width: int, size: int) -> list[str]:
    lines = [""]
    for word in words.split():
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
