"""``maps.png``: an object's attention over the steps, base above steered, one colour scale for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learn_to_steer.report.attention import ObjectMaps
from learn_to_steer.report.page import INK, SOFT, column, framed, margined, row, text

SIDE = 96
LABEL = 130
# Dark to light, evenly spaced; lightness grows steadily, so the picture survives grey print.
COLORS = np.array([(13, 8, 35), (66, 15, 104), (135, 33, 107), (201, 62, 75), (245, 125, 21), (252, 255, 184)])


def draw_maps(blocks: Sequence[tuple[str, ObjectMaps, Sequence[tuple[str, Image.Image]]]], total: int) -> Image.Image:
    """A page of maps: per prompt its text, maps, and for every picture in them its label and itself.

    Rows are objects, and in an object the pictures; columns are steps (of ``total``), and the picture at the
    end. Within a prompt all maps share one scale, from the lowest to the highest value shown; the scale's ends
    are named in multiples of what a place would get if attention were spread evenly.
    """
    pages = [_block(prompt, maps, pictures, total) for prompt, maps, pictures in blocks]
    return margined(column(pages, gap=32))


def _block(prompt: str, maps: ObjectMaps, pictures: Sequence[tuple[str, Image.Image]], total: int) -> Image.Image:
    size = _cell(pictures[0][1])
    low, high = float(maps.values.min()), float(maps.values.max())
    shares = (maps.values - low) / max(high - low, 1e-12)
    head = [text("", LABEL), *(text(f"step {s + 1}/{total}", size[0], 13, SOFT, "center") for s in maps.steps)]
    lines = [row([*head, text("picture", size[0], 13, SOFT, "center")], gap=6)]
    for number, name in enumerate(maps.objects):
        for which, (label, picture) in enumerate(pictures):
            title = column([text(name, LABEL, 15, INK), text(label, LABEL, 13, SOFT)], gap=0)
            cells = [_heat(shares[which, step, number], size) for step in range(len(maps.steps))]
            lines.append(row([title, *cells, framed(picture, None, size, border=0)], gap=6, middle=True))
    places = maps.values.shape[-1] * maps.values.shape[-2]
    width = max(line.width for line in lines)
    return column([text(prompt, width, 19), *lines, _scale(low * places, high * places)], gap=6)


def _cell(picture: Image.Image) -> tuple[int, int]:
    factor = SIDE / min(picture.size)
    return round(picture.width * factor), round(picture.height * factor)


def _heat(values: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """Values in [0, 1] in colour, enlarged smoothly."""
    smooth = Image.fromarray(np.clip(values, 0, 1).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return _colored(np.asarray(smooth))


def _colored(values: NDArray[np.float32]) -> Image.Image:
    places = np.linspace(0, 1, len(COLORS))
    channels = [np.interp(values, places, COLORS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _scale(low: float, high: float) -> Image.Image:
    bar = _colored(np.tile(np.linspace(0, 1, 140, dtype=np.float32), (12, 1)))
    ends = [text(f"attention {low:.1f}", 104, 13, SOFT), text(f"{high:.1f} times an even spread", 190, 13, SOFT)]
    return row([text("", LABEL, 13), ends[0], bar, ends[1]], 6, middle=True)
