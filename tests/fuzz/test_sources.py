"""Damaged annotation files and pictures: what can be read is used as it stands, the rest is skipped or refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import as_json, byte_edits, edited_bytes, edited_tree, tree_edits
from PIL import Image

from learn_to_steer import registry
from learn_to_steer.benchmarks import load_file
from learn_to_steer.errors import SteerError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL, basic_relations
from learn_to_steer.image_files import read_image
from learn_to_steer.sources import LabelledImage, SourceRequest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as the command line does
SIZE = (60, 40)
LEFT, RIGHT = (3, 12, 18, 28), (40, 12, 55, 28)
GRAPHS = {
    str(number): {
        "width": 60,
        "height": 40,
        "objects": {
            "1": {"name": "dog", "x": 3, "y": 12, "w": 15, "h": 16, "relations": [{"name": "near", "object": "2"}]},
            "2": {"name": "cat", "x": 40, "y": 12, "w": 15, "h": 16, "relations": []},
        },
    }
    for number in range(3)
}
INSTANCES = {
    "images": [{"id": number, "file_name": f"{number}.jpg", "width": 60, "height": 40} for number in range(3)],
    "annotations": [
        {"id": 2 * number + k, "image_id": number, "category_id": k + 1, "bbox": [x, 2, 34, 36], "iscrowd": 0}
        for number in range(3)
        for k, x in enumerate((1, 25))
    ],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
}
ANSWERS = [
    {
        "image": f"{number}.jpg",
        "conversations": [
            {"from": "human", "value": 'The prompt: "a dog to the left of a cat". Does this image show it?'},
            {"from": "gpt", "value": "yes"},
        ],
    }
    for number in range(3)
]
LINES = [
    {
        "image": f"{number}.jpg",
        "objects": [{"name": "dog", "box": list(LEFT)}, {"name": "cat", "box": list(RIGHT)}],
        "relations": [["dog", "left of", "cat"]],
    }
    for number in range(3)
]
# By source: the name of the annotation file, its content, and how it is written.
VALID: dict[str, tuple[str, Any]] = {
    "gqa": ("train_sceneGraphs.json", GRAPHS),
    "coco": ("instances_train.json", INSTANCES),
    "image-generation-cot": ("orm.json", ANSWERS),
    "folder": ("mine.jsonl", LINES),
}


def written(source: str, value: Any) -> bytes:
    if source != "folder":
        return as_json(value)
    return b"".join(as_json(row) + b"\n" for row in (value if isinstance(value, list) else [value]))


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Three JPEG files that differ."""
    files = []
    for seed in range(3):
        buffer = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, format="JPEG")
        files.append(buffer.getvalue())
    return files


def images_of(source: str, folder: Path, content: bytes, pictures: list[bytes], limit: int = 9) -> list[LabelledImage]:
    name = VALID[source][0]
    (folder / "images").mkdir()
    for number, picture in enumerate(pictures):
        for place in (folder, folder / "images"):
            (place / f"{number}.jpg").write_bytes(picture)
    (folder / name).write_bytes(content)
    request = SourceRequest(limit, 0, 16, data=str(folder / name))
    return list(registry.load("sources", source).images(request))


def check(labelled: list[LabelledImage]) -> None:
    """Labels fit the boxes, boxes lie in the image, and the image is what was requested."""
    for one in labelled:
        assert one.predicate in (*BASIC, *DIAGONAL, NEUTRAL)
        assert one.subject.strip() and one.object.strip()
        if one.boxes is not None:
            holding = basic_relations(*one.boxes)
            assert holding == {one.predicate} or one.predicate == NEUTRAL
            assert all(-1e-6 <= edge <= 16 + 1e-6 for box in one.boxes for edge in box)
        with suppress(SteerError):
            pixels = one.pixels()
            assert pixels.shape == (3, 16, 16) and 0 <= float(pixels.min()) <= float(pixels.max()) <= 1


@pytest.mark.parametrize("source", VALID)
def test_the_files_are_read_when_they_are_whole(source: str, fresh: Callable[[], Path], pictures: list[bytes]) -> None:
    labelled = images_of(source, fresh(), written(source, VALID[source][1]), pictures)
    assert labelled
    check(labelled)


@pytest.mark.parametrize("source", VALID)
@given(edits=tree_edits)
@example(edits=[(0, 5)])
@example(edits=[(0, "\ud800")])
@example(edits=[(4, 10**400)])
def test_annotations_with_other_values(
    source: str, fresh: Callable[[], Path], pictures: list[bytes], edits: list[Any]
) -> None:
    with suppress(SteerError):
        check(images_of(source, fresh(), written(source, edited_tree(VALID[source][1], edits)), pictures))


@pytest.mark.parametrize("source", VALID)
@given(edits=byte_edits)
def test_annotations_with_other_bytes(
    source: str, fresh: Callable[[], Path], pictures: list[bytes], edits: list[tuple[int, int, bytes]]
) -> None:
    with suppress(SteerError):
        check(images_of(source, fresh(), edited_bytes(written(source, VALID[source][1]), edits), pictures))


USERS_PROMPTS = [
    {"prompt": "a dog to the left of a cat"},
    {"prompt": "a dog above a cat", "relations": [["dog", "above", "cat"]], "include": [], "index": 7},
]


@given(tree_edits)
@example([(0, [])])
def test_prompt_files_with_other_values(fresh: Callable[[], Path], edits: list[Any]) -> None:
    path = fresh() / "prompts.jsonl"
    path.write_bytes(written("folder", edited_tree(USERS_PROMPTS, edits)))
    with suppress(SteerError):
        assert all(prompt.relations for prompt in load_file(path))


@given(byte_edits)
def test_prompt_files_with_other_bytes(fresh: Callable[[], Path], edits: list[tuple[int, int, bytes]]) -> None:
    path = fresh() / "prompts.jsonl"
    path.write_bytes(edited_bytes(written("folder", USERS_PROMPTS), edits))
    with suppress(SteerError):
        assert all(prompt.relations for prompt in load_file(path))


# Pictures

FORMATS = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "gif": ("1", "L", "P", "RGB"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"),
    "bmp": ("1", "L", "P", "RGB"),
}
KINDS = [(form, mode) for form, modes in FORMATS.items() for mode in modes]
sizes = st.sampled_from(((1, 1), (1, 9), (7, 3), (16, 16), (200, 1)))


def encoded(form: str, mode: str, size: tuple[int, int], **extras: Any) -> bytes:
    """A valid picture of any mode: a gradient."""
    ramp = np.linspace(0, 255, size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0])
    if mode == "I;16":
        picture = Image.fromarray(ramp.astype(np.uint16) * 257)
    elif mode == "LAB":
        picture = Image.new("LAB", size, (128, 10, 10))
    else:
        picture = Image.fromarray(ramp).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(255 - ramp))
    buffer = io.BytesIO()
    picture.save(buffer, format={"jpg": "JPEG", "tiff": "TIFF"}.get(form, form.upper()), **extras)
    return buffer.getvalue()


def read_both_ways(folder: Path, name: str, content: bytes) -> Iterator[Any]:
    """As ``score`` reads a picture, and as a source of training data does."""
    (folder / name).write_bytes(content)
    row = {"image": name, "objects": [{"name": "dog", "box": [0, 0, 4, 9]}, {"name": "cat", "box": [9, 0, 16, 9]}]}
    (folder / "mine.jsonl").write_text(json.dumps(row))
    with suppress(SteerError):
        yield read_image(folder / name)
    with suppress(SteerError):
        request = SourceRequest(1, 0, 8, data=str(folder / "mine.jsonl"))
        yield from (one.pixels() for one in registry.load("sources", "folder").images(request))


def check_picture(folder: Path, name: str, content: bytes) -> None:
    for read in read_both_ways(folder, name, content):
        if isinstance(read, Image.Image):
            assert read.mode == "RGB" and min(read.size) > 0
        else:
            assert read.shape == (3, 8, 8) and 0 <= float(read.min()) <= float(read.max()) <= 1


@settings(max_examples=min(2 * settings().max_examples, 4 * len(KINDS)))  # there are five sizes
@given(st.sampled_from(KINDS), sizes)
@example(("png", "LA"), (16, 16))
def test_pictures_of_every_mode_keep_their_grey(
    fresh: Callable[[], Path], kind: tuple[str, str], size: tuple[int, int]
) -> None:
    """Black stays black and white stays white; what is transparent is none of both."""
    form, mode = kind
    folder = fresh()
    path = folder / f"a.{form}"
    path.write_bytes(encoded(form, mode, size))
    picture = read_image(path)
    assert picture.mode == "RGB" and picture.size == size
    if size == (16, 16) and mode not in ("1", "LAB", "CMYK", "YCbCr") and form in ("png", "tiff", "bmp", "webp"):
        first, last = (np.mean(picture.getpixel(place)) for place in ((0, 0), (15, 15)))
        assert first < 16
        assert (100 < last < 156) if mode.endswith("A") else last > 239
    check_picture(folder, f"b.{form}", encoded(form, mode, size))


@settings(max_examples=3 * settings().max_examples)
@given(st.sampled_from(KINDS), byte_edits)
@example(("png", "RGB"), [(0, 4, b"")])
def test_pictures_with_other_bytes(
    fresh: Callable[[], Path], kind: tuple[str, str], edits: list[tuple[int, int, bytes]]
) -> None:
    form, mode = kind
    check_picture(fresh(), f"a.{form}", edited_bytes(encoded(form, mode, (16, 16)), edits))


@given(st.sampled_from(("jpg", "png", "webp")), st.integers(0, 65535), st.binary(max_size=40), byte_edits)
def test_pictures_with_any_exif(
    fresh: Callable[[], Path], form: str, orientation: int, thumbnail: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x927C] = orientation, thumbnail
    content = edited_bytes(exif.tobytes(), edits)
    check_picture(fresh(), f"a.{form}", encoded(form, "RGB", (16, 9), exif=content))


@given(st.binary(max_size=64), st.sampled_from(("png", "jpg", "webp", "gif", "tiff")))
@example(b"", "png")
@example(b"GIF89a", "gif")
def test_pictures_of_any_bytes(fresh: Callable[[], Path], content: bytes, form: str) -> None:
    check_picture(fresh(), f"a.{form}", content)
