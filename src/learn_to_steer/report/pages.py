"""Pages of images: base beside steered, a table of prompts and methods, a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from learn_to_steer.report.layout import SOFT, column, framed, row, scaled_size, text, with_margin

PAIRS_PER_ROW = 2
GRID_SIDE = 144
GRID_LABEL_WIDTH = 150
SHEET_SIDE = 128
BORDER, NARROW_BORDER = 5, 4


@dataclass(frozen=True)
class Panel:
    """An image on a page.

    Attributes:
        image: The image.
        correct: Whether the image is correct, shown by the colour of the frame; None if it was not scored.
        note: A line below the image.
    """

    image: Image.Image
    correct: bool | None = None
    note: str = ""


def comparison_page(prompts: Sequence[tuple[str, Sequence[Panel], Sequence[Panel]]]) -> Image.Image:
    """Draw base and steered images of the same noise side by side.

    Args:
        prompts: For each prompt its text, its base images, and as many steered images (or none).

    Returns:
        The page. Frames are green (correct), red (wrong) or grey (not scored).
    """
    blocks = []
    for prompt, base, steered in prompts:
        if steered:
            groups = [
                row([_labelled(before, "base"), _labelled(after, "steered")], gap=10)
                for before, after in zip(base, steered, strict=True)
            ]
        else:
            groups = [_labelled(panel, "base") for panel in base]
        per_row = PAIRS_PER_ROW if steered else 2 * PAIRS_PER_ROW
        lines = [row(groups[start : start + per_row], gap=32) for start in range(0, len(groups), per_row)]
        width = max(line.width for line in lines)
        blocks.append(column([text(prompt, width, size=19), *lines], gap=12))
    return with_margin(column(blocks, gap=28))


def image_grid(
    headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Panel]]], side: int = GRID_SIDE
) -> Image.Image:
    """Draw images in a table.

    Args:
        headings: The heading of each column.
        rows: For each row its label and one image per column.
        side: Shorter side of every image in pixels.

    Returns:
        The page, frames coloured as in ``comparison_page``.

    Raises:
        ValueError: There are no rows, or a row does not have one image for each heading.
    """
    if not rows or any(len(panels) != len(headings) for _, panels in rows):
        raise ValueError(f"the grid needs rows of {len(headings)} images each, one under each heading")
    width = max(scaled_size(panel.image, side)[0] for _, panels in rows for panel in panels) + 2 * NARROW_BORDER
    head = [text("", GRID_LABEL_WIDTH), *(text(heading, width, 15, align="center") for heading in headings)]
    lines = [row(head, gap=8)]
    for label, panels in rows:
        cells = []
        for panel in panels:
            cell = framed(panel.image, panel.correct, scaled_size(panel.image, side), NARROW_BORDER)
            cells.append(column([cell, text(panel.note, width, 12, SOFT, "center")], gap=2) if panel.note else cell)
        lines.append(row([text(label, GRID_LABEL_WIDTH, 14), row(cells, gap=8)], gap=8, middle=True))
    return with_margin(column(lines, gap=8))


def image_pages(panels: Sequence[Panel], across: int, side: int = GRID_SIDE) -> Iterator[Image.Image]:
    """Draw images in squares of ``across`` times ``across``, one page after the other.

    Args:
        panels: The images; of one size.
        across: Number of images in a row, and of rows on a page.
        side: Shorter side of every image in pixels.

    Yields:
        The pages. The last one is filled up with white.
    """
    white = Panel(Image.new("RGB", panels[0].image.size, "white"))
    whole = [*panels, *[white] * (-len(panels) % across**2)]
    for start in range(0, len(whole), across**2):
        lines = [("", whole[first : first + across]) for first in range(start, start + across**2, across)]
        yield image_grid([""] * across, lines, side)


def contact_sheet(images: Sequence[Image.Image], correct: Sequence[bool | None], columns: int) -> Image.Image:
    """Draw many images on one sheet, row by row.

    Args:
        images: The images.
        correct: Whether each image is correct; frames are coloured as in ``comparison_page``.
        columns: Number of images in a row.

    Returns:
        The sheet.

    Raises:
        ValueError: There are no images or no columns, or ``correct`` has another length.
    """
    if not images or len(images) != len(correct) or columns < 1:
        raise ValueError(
            f"a sheet has {len(images)} images, {len(correct)} values of correct and {columns} columns; give at least "
            "one image and column, and one value for each image"
        )
    cells = [
        framed(image, is_correct, scaled_size(image, SHEET_SIDE), NARROW_BORDER)
        for image, is_correct in zip(images, correct, strict=True)
    ]
    lines = [row(cells[start : start + columns], gap=6) for start in range(0, len(cells), columns)]
    return with_margin(column(lines, gap=6))


def _labelled(panel: Panel, label: str) -> Image.Image:
    """A framed image above its label and note."""
    image = framed(panel.image, panel.correct, scaled_size(panel.image), BORDER)
    lines = [text(label, image.width, size=15, align="center")]
    if panel.note:
        lines.append(text(panel.note, image.width, size=13, color=SOFT, align="center"))
    return column([image, *lines], gap=4)
