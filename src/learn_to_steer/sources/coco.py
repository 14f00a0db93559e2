"""Photos of COCO with annotated boxes, filtered as for CoMPaSS's training set SCOP.

Source:
    COCO instances (Lin et al., ECCV 2014). Filters of CoMPaSS (arXiv 2412.13195, section 3.1): boxes of at least
    32 x 32 pixels that together cover a fifth of the image, are no further apart than twice the smaller diagonal,
    overlap by less than 0.3 of the smaller one, and differ in area by a factor of two at most. Unlike there, the
    relation follows GenEval's rule on the centres, classes that occur twice in an image are left out, and neutral
    pairs may overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learn_to_steer.errors import DataError
from learn_to_steer.sources._annotations import (
    AnnotatedImage,
    Annotation,
    annotated_size,
    annotation_file,
    box_from_corner,
    image_folder,
    read_json,
)
from learn_to_steer.sources._candidates import PairRules
from learn_to_steer.sources._sampling import images_from_boxes
from learn_to_steer.sources.base import LabelledImages, SkipLog, SourceRequest
from learn_to_steer.vocabulary import COCO_NAMES

NOTE = (
    "COCO instances (annotations CC BY 4.0) on pictures of Flickr under their owners' terms; "
    "pairs filtered by CoMPaSS's rules, nouns checked with WordNet 3.0"
)
WANTED = "an instances file of COCO (instances_train2017.json)"
RULES = PairRules(least_share=0.0, least_pixels=1024, total_share=0.2, overlap=0.3, balance=0.5, distance=2.0)
_UNITS = ("picture", "object", "class")


def images(request: SourceRequest) -> LabelledImages:
    """Return labelled images of an instances file; see ``Source.images``.

    The images of ``instances_NAME.json`` are in a folder NAME or ``images``, next to the file or to its folder. The
    file is read into memory, without the outlines of the objects.

    Args:
        request: Which images are wanted.

    Returns:
        The images, and a log of what was skipped.
    """
    path = annotation_file("coco", request.data, WANTED)
    part = path.stem.removeprefix("instances_")
    folder = image_folder(path, (part, f"../{part}", f"../images/{part}", "images", "../images"))
    skipped = SkipLog()
    return images_from_boxes("coco", _annotated(path, folder, skipped), RULES, request, skipped)


def _annotated(path: Path, folder: Path, skipped: SkipLog) -> Iterator[AnnotatedImage]:
    value = read_json(path, without="segmentation")
    keys = ("images", "annotations", "categories")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in keys):
        raise DataError(f"{path} has no lists of images, annotations and categories; give {WANTED}")
    images, boxes, classes = (_entries(value[key], unit, skipped) for key, unit in zip(keys, _UNITS, strict=True))
    names: dict[Any, Any] = {entry["id"]: entry.get("name") for entry in classes}
    annotations: dict[int, list[Annotation]] = defaultdict(list)
    for entry in boxes:
        box = entry.get("bbox")
        corners = box_from_corner(*box) if isinstance(box, list) and len(box) == 4 else box
        image, category = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image, int) or not isinstance(category, int) or not isinstance(names.get(category), str):
            skipped.add("object: unknown picture or category", f"annotation {entry['id']}")
            continue
        # Some of COCO's own names are ambiguous in a prompt.
        name = COCO_NAMES.get(names[category], names[category])
        annotations[image].append(Annotation(name, corners, many=bool(entry.get("iscrowd"))))
    for entry in images:
        size, file = annotated_size(entry.get("width"), entry.get("height")), entry.get("file_name")
        objects = annotations.pop(entry["id"], [])
        if size is None or not isinstance(file, str):
            skipped.add("picture: entry not of the format", f"image {entry['id']}")
            continue
        yield AnnotatedImage(Path(file).stem, folder / file, size, objects)
    for image, left in annotations.items():
        skipped.add("object: its picture is not listed", f"image {image}", len(left))


def _entries(values: list[Any], unit: str, skipped: SkipLog) -> list[dict[str, Any]]:
    """The JSON objects with an id among ``values``; others are logged as skipped."""
    entries = []
    for value in values:
        if isinstance(value, dict) and isinstance(value.get("id"), int):
            entries.append(value)
        else:
            skipped.add(f"{unit}: entry not of the format", repr(value))
    return entries
