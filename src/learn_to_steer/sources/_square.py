"""A square of a picture that holds two objects whole, at the side a model wants."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box

if TYPE_CHECKING:
    from torch import Tensor

Window = tuple[int, int, int, int]
GREY = (127, 127, 127)
# What PIL raises for files that are no pictures, cut short, or suspiciously large.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as it is shown, its header alone being read. Raises one of BROKEN."""
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: a quarter turn, mirrored or not
        return (image.height, image.width) if turned else (image.width, image.height)


def picture_digest(path: Path) -> str:
    """A hash of the file, once it is sure that the picture can be decoded whole. Raises one of BROKEN."""
    with Image.open(path) as image:
        image.load()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def window(size: tuple[int, int], boxes: Sequence[Box]) -> Window:
    """The square (x0, y0, x1, y1) to cut out of a picture of ``size``, in pixels; it holds all ``boxes``.

    It is the centre crop, moved no further than the boxes ask for; where they do not fit into that, it grows along
    the longer axis to hold them and reaches beyond the shorter one, to be padded.
    """
    low = [math.floor(min(box[axis] for box in boxes)) for axis in (0, 1)]
    high = [math.ceil(max(box[axis + 2] for box in boxes)) for axis in (0, 1)]
    side = max(min(size), *(high[axis] - low[axis] for axis in (0, 1)))
    start = []
    for axis in (0, 1):
        centred = (size[axis] - side) // 2
        if side <= size[axis]:
            centred = min(max(centred, high[axis] - side, 0), low[axis], size[axis] - side)
        start.append(centred)
    return start[0], start[1], start[0] + side, start[1] + side


def moved(box: Box, square: Window, side: int) -> tuple[float, float, float, float]:
    """``box`` in the pixels of the cut and resized picture."""
    scale = side / (square[2] - square[0])
    x0, y0, x1, y1 = box
    return (x0 - square[0]) * scale, (y0 - square[1]) * scale, (x1 - square[0]) * scale, (y1 - square[1]) * scale


@dataclass(frozen=True)
class Cut:
    """A part of a picture file that is read when it is called for: RGB (3, side, side) in [0, 1].

    Pictures are turned upright as EXIF says; what lies outside the picture is grey. Raises DataError when the file
    went away or broke since it was chosen.
    """

    path: Path
    square: Window
    side: int

    def __call__(self) -> Tensor:
        import torch

        try:
            with Image.open(self.path) as image:
                whole = ImageOps.exif_transpose(image).convert("RGB")
        except BROKEN as error:
            raise DataError(f"{self.path} can no longer be read ({error}); restore it and collect again") from error
        x0, y0, x1, y1 = self.square
        canvas = Image.new("RGB", (x1 - x0, y1 - y0), GREY)
        canvas.paste(whole, (-x0, -y0))
        small = canvas.resize((self.side, self.side), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()
