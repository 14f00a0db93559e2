"""Your own images, with a JSON-lines file of the objects and boxes in them.

An example of an entry, which is one line of the file::

    {"image": "a.jpg", "objects": [{"name": "dog", "box": [5, 9, 40, 60]}, {"name": "cat", "box": [60, 9, 90, 60]}],
     "relations": [["dog", "left of", "cat"]]}

A box is (x0, y0, x1, y1) in pixels of the image after its EXIF orientation, y downward. ``relations`` is optional.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from learn_to_steer.errors import DataError, PromptError
from learn_to_steer.image_files import image_size
from learn_to_steer.prompts import predicate_from_text
from learn_to_steer.sources._annotations import AnnotatedImage, Annotation, annotation_file, iterate_lines
from learn_to_steer.sources._candidates import PairRules
from learn_to_steer.sources._nouns import normalise, singular
from learn_to_steer.sources._sampling import images_from_boxes
from learn_to_steer.sources.base import LabelledImages, SkipLog, SourceRequest

NOTE = "the user's own pictures and boxes, under the user's own terms; nouns checked with WordNet 3.0"
WANTED = 'a JSON-lines file, {"image": ..., "objects": [{"name": ..., "box": [x0, y0, x1, y1]}]} a line'


def images(request: SourceRequest) -> LabelledImages:
    """Return labelled images of a JSON-lines file; see ``Source.images``.

    Paths of images are relative to the folder of the file. Names that are not in the WordNet table are used too, but
    counted in the log: whether they mean the same as another object cannot be checked.

    Args:
        request: Which images are wanted.

    Returns:
        The images, and a log of what was skipped.
    """
    path = annotation_file("folder", request.data, WANTED)
    skipped = SkipLog()
    return images_from_boxes("folder", _annotated(path, skipped), PairRules(unknown_names=True), request, skipped)


def _annotated(path: Path, skipped: SkipLog) -> Iterator[AnnotatedImage]:
    for number, row in iterate_lines(path, skipped):
        image, objects = row.get("image"), row.get("objects")
        if not isinstance(image, str) or not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
            skipped.add("line: not of the format", f"line {number}")
            continue
        image_path = path.parent / image
        try:
            size = image_size(image_path)
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                skipped.add("picture: file is missing", f"line {number}: {image}")
            else:
                skipped.add("picture: cannot be decoded", f"line {number}: {error}")
            continue
        annotations = [Annotation(one.get("name"), one.get("box")) for one in objects]
        relations = _annotated_relations(number, row, annotations, skipped)
        yield AnnotatedImage(Path(image).as_posix(), image_path, size, annotations, relations)


def _annotated_relations(
    number: int, row: dict[str, Any], annotations: Sequence[Annotation], skipped: SkipLog
) -> dict[tuple[int, int], list[str]]:
    """The relations of a line, by the indices of their objects."""
    indices = {singular(name): i for i, one in enumerate(annotations) if (name := normalise(one.name))}
    annotated: dict[tuple[int, int], list[str]] = defaultdict(list)
    relations = row.get("relations") or []
    for entry in relations if isinstance(relations, list) else [relations]:
        words = [normalise(word) for word in entry] if isinstance(entry, list) and len(entry) == 3 else []
        if len(words) != 3 or None in words:
            skipped.add("pair: annotated relation not of the format", f"line {number}: {entry!r}")
            continue
        subject, word, reference = (str(word) for word in words)
        try:
            annotated[indices[singular(subject)], indices[singular(reference)]].append(predicate_from_text(word))
        except KeyError:
            skipped.add("pair: annotated relation of an object that is not listed", f"line {number}: {entry!r}")
        except PromptError:
            skipped.add("pair: annotated relation has an unknown predicate", f"line {number}: {entry!r}")
    return annotated
