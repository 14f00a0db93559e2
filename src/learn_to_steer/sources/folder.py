"""Pictures of your own: a JSON-lines file of objects and boxes beside the pictures.

A line: ``{"image": "a.jpg", "objects": [{"name": "dog", "box": [x0, y0, x1, y1]}, ...], "relations": [["dog",
"left of", "cat"]]}``. Boxes are in pixels of the picture as it is shown, y downward; ``relations`` may be left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts.phrases import canonical
from learn_to_steer.sources._draw import from_boxes
from learn_to_steer.sources._files import annotation_file, lines
from learn_to_steer.sources._names import clean, stem
from learn_to_steer.sources._pairs import Record, Rules, Thing
from learn_to_steer.sources._protocol import LabelledPicture, Pairs, Skipped
from learn_to_steer.sources._square import BROKEN, picture_size

NOTE = "the user's own pictures and boxes, under the user's own terms; nouns checked with WordNet 3.0"
WANTED = 'a JSON-lines file, {"image": ..., "objects": [{"name": ..., "box": [x0, y0, x1, y1]}]} a line'


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
    """Labelled pictures of one JSON-lines file ``data``; paths of images are seen from its folder.

    See ``Source.pictures``. The file is read line by line. Names that the WordNet table lacks are used all the same,
    and counted: whether they mean the same as another object is then for the file's author to know.
    """
    path = annotation_file("folder", data, WANTED)
    told = Skipped() if skipped is None else skipped
    return from_boxes(
        "folder",
        _records(path, told),
        Rules(unknown_names=True),
        limit=limit,
        seed=seed,
        side=side,
        diagonals=diagonals,
        exclude=exclude,
        skipped=told,
    )


def _records(path: Path, skipped: Skipped) -> Iterator[Record]:
    for number, row in lines(path, skipped):
        image, objects = row.get("image"), row.get("objects")
        if not isinstance(image, str) or not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
            skipped.add("line: not of the format", f"line {number}")
            continue
        place = path.parent / image
        try:
            size = picture_size(place)
        except FileNotFoundError:
            skipped.add("picture: file is missing", f"line {number}: {image}")
            continue
        except BROKEN as error:
            skipped.add("picture: cannot be decoded", f"line {number}: {image}: {error}")
            continue
        things = [Thing(o.get("name"), o.get("box")) for o in objects]
        yield Record(Path(image).as_posix(), place, size, things, _said(number, row, things, skipped))


def _said(
    number: int, row: dict[str, Any], things: Sequence[Thing], skipped: Skipped
) -> dict[tuple[int, int], list[str]]:
    """The relations of a line, by the numbers of their objects."""
    numbers = {stem(name): i for i, thing in enumerate(things) if (name := clean(thing.name))}
    said: dict[tuple[int, int], list[str]] = defaultdict(list)
    relations = row.get("relations") or []
    for entry in relations if isinstance(relations, list) else [relations]:
        words = [clean(word) for word in entry] if isinstance(entry, list) and len(entry) == 3 else []
        if len(words) != 3 or None in words:
            skipped.add("pair: annotated relation not of the format", f"line {number}: {entry!r}")
            continue
        subject, word, reference = (str(word) for word in words)
        try:
            said[numbers[stem(subject)], numbers[stem(reference)]].append(canonical(word))
        except KeyError:
            skipped.add("pair: annotated relation of an object that is not listed", f"line {number}: {entry!r}")
        except PromptError:
            skipped.add("pair: annotated relation has an unknown predicate", f"line {number}: {entry!r}")
    return said
