"""Base and steered pictures of the same noise, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from learn_to_steer.report.page import SOFT, column, framed, margined, row, shown_size, text

BORDER = 5
PAIRS = 2  # a row


@dataclass(frozen=True)
class Shown:
    """A picture on the page: whether a judge found it correct (None: nobody looked), and a line below it."""

    image: Image.Image
    correct: bool | None = None
    note: str = ""


def compare(prompts: Sequence[tuple[str, Sequence[Shown], Sequence[Shown]]]) -> Image.Image:
    """One page: per prompt its text, then its images as pairs "base | steered", of the same noise.

    Without steered pictures the base ones stand alone. Frames are green (correct), red (wrong) or grey.
    """
    blocks = []
    for prompt, base, steered in prompts:
        groups = [
            row([_labelled(shown, label) for shown, label in pair], gap=10)
            for pair in (
                [[(b, "base"), (s, "steered")] for b, s in zip(base, steered, strict=True)]
                if steered
                else [[(b, "base")] for b in base]
            )
        ]
        a_row = PAIRS if steered else 2 * PAIRS
        lines = [row(groups[start : start + a_row], gap=32) for start in range(0, len(groups), a_row)]
        width = max(line.width for line in lines)
        blocks.append(column([text(prompt, width, size=19), *lines], gap=12))
    return margined(column(blocks, gap=28))


def _labelled(shown: Shown, label: str) -> Image.Image:
    picture = framed(shown.image, shown.correct, shown_size(shown.image), BORDER)
    under = [text(label, picture.width, size=15, align="center")]
    if shown.note:
        under.append(text(shown.note, picture.width, size=13, color=SOFT, align="center"))
    return column([picture, *under], gap=4)
