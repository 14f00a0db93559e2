"""Reading image files: right pixels or an error that names the file."""

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from learn_to_steer.errors import DataError
from learn_to_steer.image_files import GREY, image_size, read_image, to_rgb

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
SIXTEEN = RAMP.astype(np.uint16) * 257


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))


def png(color: int, depth: int, raw: bytes, size: tuple[int, int], transparent: bytes = b"") -> bytes:
    """The bytes of a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0))
    key = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sixteen.png", SIXTEEN),
        ("sixteen.tiff", SIXTEEN),
        ("big-endian.tiff", SIXTEEN.astype(">u2")),
        ("sixteen.pgm", SIXTEEN),
        ("integers-of-16-bits.tiff", SIXTEEN.astype(np.int32)),
        ("integers-of-8-bits.tiff", RAMP.astype(np.int32)),
        ("shares-of-white.tiff", RAMP.astype(np.float32) / 255),
        ("floats-of-8-bits.tiff", RAMP.astype(np.float32)),
        ("eight.png", RAMP),
    ],
)
def test_grey_values_of_any_depth_are_scaled_to_8_bits(tmp_path: Path, name: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert np.array_equal(pixels(tmp_path / name), np.repeat(RAMP[:, :, None], 3, axis=2))


def test_colours_of_16_bits_are_scaled_to_8_bits(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + struct.pack(">24H", *np.repeat(row, 3).tolist()) for row in SIXTEEN)
    (tmp_path / "colour.png").write_bytes(png(2, 16, rows, (8, 8)))
    assert np.array_equal(pixels(tmp_path / "colour.png")[:, :, 1], RAMP)


@pytest.mark.parametrize(
    "values",
    [
        np.full((2, 2), -1, np.int32),
        np.full((2, 2), 1 << 20, np.int32),
        np.full((2, 2), np.nan, np.float32),
        np.full((2, 2), 1e6, np.float32),
        np.full((2, 2), -0.5, np.float32),
    ],
)
def test_numbers_that_are_no_colours_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "numbers.tiff")
    with pytest.raises(DataError, match=r"numbers\.tiff cannot be read .*save it with 8 or 16 bits"):
        read_image(tmp_path / "numbers.tiff")
    with pytest.raises(DataError, match="shown in RGB"):
        to_rgb(Image.fromarray(values))


def with_palette(path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=0)


TRANSPARENT: dict[str, Callable[[Path], Any]] = {
    "rgba.png": lambda path: Image.fromarray(np.array([[[255, 0, 0, 0], [0, 255, 0, 255]]], np.uint8)).save(path),
    "rgba.webp": lambda path: Image.fromarray(np.array([[[255, 0, 0, 0], [0, 255, 0, 255]]], np.uint8)).save(
        path, lossless=True, exact=True
    ),
    "palette.png": with_palette,
    "palette.gif": with_palette,
    "rgb-key.png": lambda path: path.write_bytes(png(2, 8, b"\0\xff\0\0\0\xff\0", (2, 1), b"\0\xff\0\0\0\0")),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_are_grey(tmp_path: Path, name: str) -> None:
    TRANSPARENT[name](tmp_path / name)
    assert pixels(tmp_path / name)[0].tolist() == [list(GREY), [0, 255, 0]]


def test_transparent_grey_values_are_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 0], [80, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    (tmp_path / "l.png").write_bytes(png(0, 8, b"\0\xff\x50", (2, 1), b"\0\xff"))
    (tmp_path / "l16.png").write_bytes(png(0, 16, b"\0\xff\xff\x50\x50", (2, 1), b"\xff\xff"))
    for name in ("la.png", "l.png", "l16.png"):
        assert pixels(tmp_path / name)[0].tolist() == [list(GREY), [80, 80, 80]], name
    half = to_rgb(Image.new("RGBA", (1, 1), (255, 255, 255, 128))).getpixel((0, 0))
    assert all(abs(value - 191) <= 1 for value in half)
    assert to_rgb(Image.new("La", (1, 1))).getpixel((0, 0)) == GREY


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    raw = b"\0" + struct.pack(">6H", 40000, 2, 3, 50000, 5, 6)
    (tmp_path / "key.png").write_bytes(png(2, 16, raw, (2, 1), struct.pack(">3H", 40000, 2, 3)))
    with pytest.raises(DataError, match=r"key\.png .*16-bit colours"):
        read_image(tmp_path / "key.png")


@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((4, 8), np.uint8)
    upright[:2, :4] = 240  # top left
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from what is shown to what is stored
        2: lambda shown: shown[:, ::-1],
        3: lambda shown: shown[::-1, ::-1],
        4: lambda shown: shown[::-1],
        5: lambda shown: shown.T,
        6: lambda shown: np.rot90(shown),
        7: lambda shown: shown[::-1, ::-1].T,
        8: lambda shown: np.rot90(shown, -1),
    }
    stored = np.ascontiguousarray(turns.get(orientation, lambda shown: shown)(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, values in (("turned.png", stored), ("turned16.png", stored.astype(np.uint16) * 257)):
        Image.fromarray(values).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == read_image(tmp_path / name).size == (8, 4)
        assert np.array_equal(pixels(tmp_path / name)[:, :, 0], upright)


def test_modes_and_animations(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red = pixels(tmp_path / "cmyk.jpg")[4, 4]
    assert red[0] > 240 and max(red[1:]) < 15
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.png")
    assert pixels(tmp_path / "bits.png").min() == 255
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "green")]
    for name in ("frames.gif", "frames.png", "frames.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert pixels(tmp_path / name)[0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


def broken_files(folder: Path) -> list[Path]:
    whole = folder / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(whole)
    Image.open(whole).save(folder / "whole.jpg")
    made = {
        "empty.png": b"",
        "text.jpg": b"no image",
        "half.png": whole.read_bytes()[:1500],
        "half.jpg": (folder / "whole.jpg").read_bytes()[:500],
        "no-width.png": png(0, 8, b"\0", (0, 1)),
        "no-height.pgm": b"P5\n1 0\n255\n",
        "bomb.png": png(0, 8, b"\0", (1 << 17, 1 << 17)),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in made] + [folder / "missing.png", folder / ("long" * 100), folder / "nul\0.png"]


def test_broken_files_are_named(tmp_path: Path) -> None:
    for path in broken_files(tmp_path):
        with pytest.raises(DataError) as told:
            read_image(path)
        assert str(path) in str(told.value), told.value


def special_files(folder: Path) -> list[Path]:
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
    return sorted(folder.glob("*.png"))


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    kinds = dict(zip(("device", "folder", "link", "pipe", "socket"), special_files(tmp_path), strict=True))
    for kind, path in kinds.items():
        for read in (read_image, image_size):
            with pytest.raises(DataError, match="regular file") as told:
                read(path)
            assert str(path) in str(told.value) and {"link": "pipe"}.get(kind, kind) in str(told.value)


def test_a_bomb_below_the_limit_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(tmp_path / "large.png").size == (40, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(DataError, match=r"large\.png.*pixels"):
        read_image(tmp_path / "large.png")


def test_a_pipe_among_the_pictures_of_a_source_is_left_out(tmp_path: Path) -> None:
    from learn_to_steer import registry
    from learn_to_steer.sources import SourceRequest

    os.mkfifo(tmp_path / "0.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "1.png")
    objects = [{"name": "dog", "box": [2, 20, 22, 40]}, {"name": "cup", "box": [40, 20, 60, 40]}]
    lines = [json.dumps({"image": f"{number}.png", "objects": objects}) for number in range(2)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    request = SourceRequest(4, 0, 64, data=str(tmp_path / "mine.jsonl"))
    labelled = registry.load("sources", "folder").images(request)
    assert [image.id for image in labelled] == ["folder-1.png"]
    assert "named pipe" in labelled.skipped.examples["picture: cannot be decoded"][0]
