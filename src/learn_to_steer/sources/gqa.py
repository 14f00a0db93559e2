"""Photos with the scene graphs of GQA. Pairs whose boxes and annotated words disagree are left out.

Source:
    GQA scene graphs v1.1 (Hudson and Manning, CVPR 2019), which the Learn-to-Steer paper uses (section 4). Unlike
    there, the label follows from the boxes, and annotated words can only exclude a pair; objects have a minimum size;
    names that occur twice in an image are left out; the split is seeded and by image, not by class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import predicate_from_text
from learn_to_steer.sources._annotations import (
    AnnotatedImage,
    Annotation,
    annotated_size,
    annotation_file,
    box_from_corner,
    image_folder,
    iterate_members,
)
from learn_to_steer.sources._candidates import PairRules
from learn_to_steer.sources._sampling import images_from_boxes
from learn_to_steer.sources.base import LabelledImages, SkipLog, SourceRequest

NOTE = (
    "GQA scene graphs v1.1 (CC BY 4.0) on pictures of Visual Genome, COCO and Flickr under their owners' terms; "
    "nouns checked with WordNet 3.0"
)
WANTED = "a scene-graph file of GQA (train_sceneGraphs.json)"
FOLDERS = ("images", "../images", ".")


def images(request: SourceRequest) -> LabelledImages:
    """Return labelled images of a scene-graph file; see ``Source.images``.

    The images are ``images/<id>.jpg``, next to the file or to its folder. The file is read entry by entry, not as a
    whole. Names stay as annotated; plurals are not used.

    Args:
        request: Which images are wanted.

    Returns:
        The images, and a log of what was skipped.
    """
    path = annotation_file("gqa", request.data, WANTED)
    skipped = SkipLog()
    annotated = _annotated(path, image_folder(path, FOLDERS), skipped)
    return images_from_boxes("gqa", annotated, PairRules(), request, skipped)


def _annotated(path: Path, folder: Path, skipped: SkipLog) -> Iterator[AnnotatedImage]:
    for name, graph in iterate_members(path, skipped):
        size = annotated_size(graph.get("width"), graph.get("height")) if isinstance(graph, dict) else None
        if size is None or not isinstance(graph.get("objects"), dict):
            skipped.add("picture: entry not of the format", name)
            continue
        objects = {key: value for key, value in graph["objects"].items() if isinstance(value, dict)}
        if len(objects) < len(graph["objects"]):
            lost = len(graph["objects"]) - len(objects)
            skipped.add("object: entry not of the format", name, lost)
        annotations = [
            Annotation(one.get("name"), box_from_corner(*(one.get(key) for key in "xywh"))) for one in objects.values()
        ]
        relations = _annotated_relations(name, objects, skipped)
        yield AnnotatedImage(name, folder / f"{name}.jpg", size, annotations, relations)


def _annotated_relations(
    image: str, objects: dict[str, dict[str, Any]], skipped: SkipLog
) -> dict[tuple[int, int], list[str]]:
    """The spatial relations among the annotated ones, by the indices of their objects; others ("near") are ignored."""
    numbers = {key: number for number, key in enumerate(objects)}
    spatial: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, entry in objects.items():
        relations = entry.get("relations", [])
        for relation in relations if isinstance(relations, list) else [relations]:
            named = isinstance(relation, dict) and isinstance(relation.get("name"), str)
            if not named or not isinstance(relation.get("object"), str) or relation["object"] not in numbers:
                skipped.add("pair: annotated relation not of the format", f"{image}: {relation!r}")
                continue
            try:
                spatial[numbers[key], numbers[relation["object"]]].append(predicate_from_text(relation["name"]))
            except PromptError:
                continue
    return spatial
