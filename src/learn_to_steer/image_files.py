"""Reads image files: sources, scoring, comparisons and detectors all do it here, in the same way.

What a file shows is turned into upright 8-bit RGB:

- The EXIF orientation is applied. Of an animation the first frame is used. Colour profiles are ignored.
- Of 16-bit values the upper 8 bits are used. Files of 32-bit numbers do not say which number is white. Integers up to
  255 are taken as 8-bit values, and above that, up to 65535, as 16-bit values. Floats up to 1 are taken as shares of
  white, and above that, up to 255, as 8-bit values. Other values are refused.
- Transparent pixels are blended with mid-grey, since the colour that is stored beneath them is arbitrary.

Only regular files are opened: reading a named pipe or a device could wait forever. Images of more pixels than Pillow
allows (twice ``PIL.Image.MAX_IMAGE_PIXELS``) are refused.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from learn_to_steer.errors import DataError
from learn_to_steer.storage import check_regular

if TYPE_CHECKING:
    from os import PathLike

GREY = (127, 127, 127)
"""The colour behind transparent pixels, and of padding."""
ORIENTATION = 0x0112  # the EXIF tag
QUARTER_TURNS = (5, 6, 7, 8)  # its values for which width and height are exchanged
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # Pillow's mode "I" of these holds 16-bit values


def read_image(path: str | PathLike[str]) -> Image.Image:
    """Read an image file.

    Args:
        path: The file.

    Returns:
        The image, upright and in 8-bit RGB, as the docstring of this module says.

    Raises:
        DataError: The file is missing, is not a regular file, or holds no complete image that can be shown in RGB.
    """
    with _opened(path) as image:
        return _to_rgb(image)


def image_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Return width and height in pixels of an image file after its EXIF orientation. Only its header is read.

    Raises:
        DataError: The file is missing, is not a regular file, or is not an image.
    """
    with _opened(path) as image:
        turned = image.getexif().get(ORIENTATION) in QUARTER_TURNS
        return (image.height, image.width) if turned else (image.width, image.height)


def is_whole(path: str | PathLike[str]) -> bool:
    """Return whether a PNG file exists and is not damaged: its own checksums match."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # all of them are raised by broken files
        return False
    return True


def png_text(path: str | PathLike[str], keyword: str) -> str | None:
    """Return a text chunk of a PNG file; its pixels are not read.

    Args:
        path: The file.
        keyword: Keyword of the chunk.

    Returns:
        The text; None if there is no such chunk before the pixels.

    Raises:
        DataError: The file is missing, is not a regular file, or is no PNG image.
    """
    with _opened(path) as image:
        if image.format != "PNG":
            raise ValueError(f"it is {image.format}, not PNG")
        text = image.info.get(keyword)
        return text if isinstance(text, str) else None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image upright and in 8-bit RGB, as the docstring of this module says.

    Raises:
        DataError: Its values cannot be shown as colours.
    """
    try:
        return _to_rgb(image)
    except ValueError as error:
        raise DataError(f"the image cannot be shown in RGB: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    has_eight_bits = not image.mode.startswith(("I", "F"))
    upright = ImageOps.exif_transpose(image) if has_eight_bits else _transposed(_grey(image), image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    key = upright.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        raise ValueError("it has 16-bit colours of which one is transparent; save it with 8 bits")
    if upright.mode == "La":  # Pillow converts it to nothing else
        upright = upright.convert("LA")
    layer = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*GREY, 255)), layer).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """An image of 16- or 32-bit grey values as an 8-bit one: mode L, or LA if it has a transparent value."""
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        shown = values >> 8
    elif image.mode == "I" and low >= 0 and high < 1 << 16:
        shown = values >> 8 if high > 255 else values
    elif image.mode == "F" and low >= 0 and high <= 255:  # False for NaN
        shown = (values * 255 if high <= 1 else values).round()
    else:
        raise ValueError(f"its values go from {low} to {high}; save it with 8 or 16 bits for each colour")
    grey = Image.fromarray(shown.astype(np.uint8))
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _transposed(image: Image.Image, original: Image.Image) -> Image.Image:
    """``image``, turned by the EXIF orientation of ``original``."""
    orientation = original.getexif().get(ORIENTATION)
    if orientation is not None:
        image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def png_bytes(image: Image.Image, texts: Mapping[str, str] | None = None) -> bytes:
    """Encode ``image`` as a PNG file.

    Args:
        image: The image.
        texts: Text chunks of the file by keyword.
    """
    chunks = PngImagePlugin.PngInfo()
    for keyword, text in (texts or {}).items():
        chunks.add_itxt(keyword, text)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


@contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong in the context is a DataError that names the file."""
    check_regular(path)
    try:
        with warnings.catch_warnings():
            # Images below Pillow's limit are wanted, even those for which it warns.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if min(image.size) < 1:
                    raise ValueError("it has no pixels")
                yield image
    except FileNotFoundError as error:
        raise DataError(f"the image {path} does not exist") from error
    except Exception as error:  # Pillow's decoders fail in many ways on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the image {path} cannot be read ({reason}); repair or replace it") from error
