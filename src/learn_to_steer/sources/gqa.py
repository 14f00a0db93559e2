"""Photos of GQA's scene graphs, a relation being kept where its boxes and its words agree.

*Source:* GQA scene graphs v1.1 (Hudson and Manning, CVPR 2019), as the Learn-to-Steer paper uses them (section 4).
*Differs* from the paper's preparation: labels come from the boxes, annotated words may only contradict them; objects
have a least size; names that come twice are really left out; the split is seeded and by picture, not by class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts.phrases import canonical
from learn_to_steer.sources._boxes import from_corner, picture_shape
from learn_to_steer.sources._draw import from_boxes
from learn_to_steer.sources._files import annotation_file, members, picture_folder
from learn_to_steer.sources._pairs import Record, Rules, Thing
from learn_to_steer.sources._protocol import LabelledPicture, Pairs, Skipped

NOTE = (
    "GQA scene graphs v1.1 (CC BY 4.0) on pictures of Visual Genome, COCO and Flickr under their owners' terms; "
    "nouns checked with WordNet 3.0"
)
WANTED = "a scene-graph file of GQA (train_sceneGraphs.json)"
FOLDERS = ("images", "../images", ".")


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
    """Labelled pictures of one scene-graph file ``data``, with ``images/<id>.jpg`` in or beside its folder.

    See ``Source.pictures``. The file is read entry by entry. Names stay as annotated; plurals are never used.
    """
    path = annotation_file("gqa", data, WANTED)
    told = Skipped() if skipped is None else skipped
    records = _records(path, picture_folder(path, FOLDERS), told)
    return from_boxes(
        "gqa",
        records,
        Rules(),
        limit=limit,
        seed=seed,
        side=side,
        diagonals=diagonals,
        exclude=exclude,
        skipped=told,
    )


def _records(path: Path, folder: Path, skipped: Skipped) -> Iterator[Record]:
    for name, graph in members(path, skipped):
        size = picture_shape(graph.get("width"), graph.get("height")) if isinstance(graph, dict) else None
        if size is None or not isinstance(graph.get("objects"), dict):
            skipped.add("picture: entry not of the format", name)
            continue
        objects = {key: value for key, value in graph["objects"].items() if isinstance(value, dict)}
        if len(objects) < len(graph["objects"]):
            lost = len(graph["objects"]) - len(objects)
            skipped.add("object: entry not of the format", name, lost)
        things = [Thing(o.get("name"), from_corner(*(o.get(key) for key in "xywh"))) for o in objects.values()]
        yield Record(name, folder / f"{name}.jpg", size, things, _said(name, objects, skipped))


def _said(picture: str, objects: dict[str, dict[str, Any]], skipped: Skipped) -> dict[tuple[int, int], list[str]]:
    """The spatial words among a picture's annotated relations; others ("wearing", "near") say nothing of place."""
    numbers = {key: number for number, key in enumerate(objects)}
    said: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, entry in objects.items():
        relations = entry.get("relations", [])
        for relation in relations if isinstance(relations, list) else [relations]:
            known = isinstance(relation, dict) and isinstance(relation.get("name"), str)
            if not known or not isinstance(relation.get("object"), str) or relation["object"] not in numbers:
                skipped.add("pair: annotated relation not of the format", f"{picture}: {relation!r}")
                continue
            try:
                said[numbers[key], numbers[relation["object"]]].append(canonical(relation["name"]))
            except PromptError:
                continue
    return said
