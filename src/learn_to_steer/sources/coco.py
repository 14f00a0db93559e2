"""Photos of COCO with exact boxes, pairs being filtered as for CoMPaSS's training set SCOP.

*Source:* COCO instances (Lin et al., ECCV 2014); the filters of CoMPaSS (arXiv 2412.13195, section 3.1): boxes of at
least 32 x 32 pixels that together cover a fifth of the picture, are no further apart than twice the smaller one's
diagonal, overlap by less than .3 of the smaller one, and differ in area by a factor of two at most.
*Differs:* the relation is GenEval's rule on centres; a class may come once in a picture; pairs without a direction
may overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learn_to_steer.errors import DataError
from learn_to_steer.sources._boxes import from_corner, picture_shape
from learn_to_steer.sources._draw import from_boxes
from learn_to_steer.sources._files import annotation_file, picture_folder, whole
from learn_to_steer.sources._pairs import Record, Rules, Thing
from learn_to_steer.sources._protocol import LabelledPicture, Pairs, Skipped

NOTE = (
    "COCO instances (annotations CC BY 4.0) on pictures of Flickr under their owners' terms; "
    "pairs filtered by CoMPaSS's rules, nouns checked with WordNet 3.0"
)
WANTED = "an instances file of COCO (instances_train2017.json)"
RULES = Rules(least_share=0.0, least_pixels=1024, total_share=0.2, overlap=0.3, balance=0.5, distance=2.0)
# What a prompt must say for the thing in the picture to be meant; the words are GenEval's.
PROMPTED = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}


def pictures(
    limit: int,
    seed: int,
    side: int,
    *,
    diagonals: bool = False,
    data: str | None = None,
    exclude: Pairs = frozenset(),
    skipped: Skipped | None = None,
) -> Iterator[LabelledPicture]:
    """Labelled pictures of one instances file ``data``; see ``Source.pictures``.

    The pictures of ``instances_NAME.json`` lie in a folder NAME or ``images`` beside the file or its folder. The file
    is read whole, its outlines being dropped on the way.
    """
    path = annotation_file("coco", data, WANTED)
    part = path.stem.removeprefix("instances_")
    folder = picture_folder(path, (part, f"../{part}", f"../images/{part}", "images", "../images"))
    told = Skipped() if skipped is None else skipped
    return from_boxes(
        "coco",
        _records(path, folder, told),
        RULES,
        limit=limit,
        seed=seed,
        side=side,
        diagonals=diagonals,
        exclude=exclude,
        skipped=told,
    )


def _records(path: Path, folder: Path, skipped: Skipped) -> Iterator[Record]:
    value = whole(path, without="segmentation")
    keys = ("images", "annotations", "categories")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in keys):
        raise DataError(f"{path} has no lists of images, annotations and categories; give {WANTED}")
    images, boxes, classes = (_entries(value[key], unit, skipped) for key, unit in zip(keys, _UNITS, strict=True))
    names: dict[Any, Any] = {entry["id"]: entry.get("name") for entry in classes}
    things: dict[int, list[Thing]] = defaultdict(list)
    for entry in boxes:
        box = entry.get("bbox")
        corners = from_corner(*box) if isinstance(box, list) and len(box) == 4 else box
        place, category = entry.get("image_id"), entry.get("category_id")
        if not isinstance(place, int) or not isinstance(category, int) or not isinstance(names.get(category), str):
            skipped.add("object: unknown picture or category", f"annotation {entry['id']}")
            continue
        name = PROMPTED.get(names[category], names[category])
        things[place].append(Thing(name, corners, many=bool(entry.get("iscrowd"))))
    for entry in images:
        size, file = picture_shape(entry.get("width"), entry.get("height")), entry.get("file_name")
        found = things.pop(entry["id"], [])
        if size is None or not isinstance(file, str):
            skipped.add("picture: entry not of the format", f"image {entry['id']}")
            continue
        yield Record(Path(file).stem, folder / file, size, found)
    for place, left in things.items():
        skipped.add("object: its picture is not listed", f"image {place}", len(left))


_UNITS = ("picture", "object", "class")


def _entries(values: list[Any], unit: str, skipped: Skipped) -> list[dict[str, Any]]:
    """The objects with an id among ``values``."""
    good = []
    for value in values:
        if isinstance(value, dict) and isinstance(value.get("id"), int):
            good.append(value)
        else:
            skipped.add(f"{unit}: entry not of the format", repr(value))
    return good
