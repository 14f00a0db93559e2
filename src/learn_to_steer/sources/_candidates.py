"""Candidates: pairs of annotated objects in an image whose relation is certain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer.geometry import NEUTRAL, OPPOSITE, Box, basic_relations, iou, label_of
from learn_to_steer.sources import _nouns
from learn_to_steer.sources._annotations import AnnotatedImage, is_number
from learn_to_steer.sources.base import NamePairs, SkipLog

TOLERANCE = 2.0  # pixels that a box may extend beyond the image because of rounding; it is clipped
SAME = 0.9  # boxes with a higher intersection over union are taken for one object with two names


@dataclass(frozen=True)
class PairRules:
    """Which pairs of boxes become candidates. Areas are areas of boxes; distances are between their centres."""

    least_share: float = 0.01
    """Smallest area of an object, as a share of the image."""
    least_pixels: float = 0.0
    """Smallest area of an object in square pixels."""
    total_share: float = 0.0
    """Smallest area of both objects together, as a share of the image."""
    overlap: float = 0.5
    """Largest intersection, as a share of the smaller box. It does not apply to neutral pairs."""
    balance: float = 0.0
    """Smallest ratio of the smaller to the larger area."""
    distance: float = math.inf
    """Largest distance, as a multiple of the shorter diagonal of the two boxes."""
    unknown_names: bool = False
    """Whether names that are not in the WordNet table are used, too."""


@dataclass(frozen=True)
class Candidate:
    """A pair of objects with their relation. ``size`` and ``boxes`` are None if the source has no boxes."""

    id: str
    """Id of the image."""
    path: Path
    subject: str
    predicate: str
    object: str
    size: tuple[int, int] | None = None
    boxes: tuple[Box, Box] | None = None
    annotated: bool = False
    """Whether the relation itself was annotated, not only the boxes."""


class NameFilter:
    """Pairs of object names to leave out, also under synonyms."""

    def __init__(self, exclude: NamePairs) -> None:
        self._excluded = {
            frozenset((one, other))
            for first, second in (sorted(pair) for pair in exclude if len(pair) == 2)
            for one in _nouns.meanings(first)
            for other in _nouns.meanings(second)
        }

    def excludes(self, first: str, second: str) -> bool:
        """Tell whether a pair is to be left out."""
        if not self._excluded:
            return False
        others = _nouns.meanings(second)
        return any(frozenset((one, other)) in self._excluded for one in _nouns.meanings(first) for other in others)


def pair_candidates(
    image: AnnotatedImage, rules: PairRules, names: NameFilter, diagonals: bool, skipped: SkipLog
) -> Iterator[Candidate]:
    """Yield all pairs of an image whose relation is certain, each in both directions.

    Args:
        image: The image with its annotations.
        rules: The conditions on the boxes.
        names: The pairs of names to leave out.
        diagonals: Whether diagonals are relations of their own; otherwise such pairs are neutral.
        skipped: The log of the objects and pairs that are left out.
    """
    usable = dict(_usable(image, rules, skipped))
    for i, j in combinations(usable, 2):
        (first, a), (second, b) = usable[i], usable[j]
        where = f"{image.id}: {first}, {second}"
        if names.excludes(first, second):
            skipped.add("pair: used by a benchmark", where)
            continue
        predicate = label_of(a, b, diagonals)
        annotated = [
            *image.relations.get((i, j), ()),
            *(OPPOSITE[word] for word in image.relations.get((j, i), ())),
        ]
        reason = _reason_against(a, b, predicate, annotated, rules, image.size)
        if reason:
            skipped.add(f"pair: {reason}", where)
            continue
        has_words = bool(annotated)
        yield Candidate(image.id, image.path, first, predicate, second, image.size, (a, b), has_words)
        yield Candidate(image.id, image.path, second, OPPOSITE[predicate], first, image.size, (b, a), has_words)


def _usable(image: AnnotatedImage, rules: PairRules, skipped: SkipLog) -> Iterator[tuple[int, tuple[str, Box]]]:
    """The index, name and clipped box of the objects whose name and box are certain."""
    named = {i: name for i, one in enumerate(image.annotations) if (name := _nouns.normalise(one.name))}
    occurrences: Counter[str] = Counter()
    for i, name in named.items():
        # A plural stands for more than one.
        several = image.annotations[i].many or _nouns.is_plural(name)
        occurrences[_nouns.singular(name)] += 2 if several else 1
    for i, annotation in enumerate(image.annotations):
        where = f"{image.id}: {annotation.name!r}"
        if i not in named:
            skipped.add("object: without a name", where)
            continue
        name = named[i]
        box = _checked(annotation.box)
        if box is None:
            skipped.add("object: broken box", f"{where} {annotation.box!r}")
        elif (inside := _clipped(box, image.size)) is None:
            skipped.add("object: box outside the picture", f"{where} {annotation.box!r} of {image.size}")
        elif occurrences[_nouns.singular(name)] > 1:
            skipped.add("object: several of its name in the picture", where)
        elif not _nouns.is_known(name) and not rules.unknown_names:
            skipped.add("object: name not in the WordNet table", where)
        elif _area(inside) < max(rules.least_pixels, rules.least_share * image.size[0] * image.size[1]):
            skipped.add("object: too small", where)
        elif other := next((n for j, n in named.items() if j != i and _nouns.related(name, n)), None):
            skipped.add("object: may be another one (synonym or hypernym)", f"{where}, {other!r}")
        else:
            if not _nouns.is_known(name):
                skipped.add("object: kept, though its name is not in the WordNet table", where)
            yield i, (name, inside)


def _reason_against(
    a: Box, b: Box, predicate: str, annotated: Sequence[str], rules: PairRules, size: tuple[int, int]
) -> str:
    """Why a pair of boxes is left out; "" when it is used."""
    if annotated and (predicate == NEUTRAL or any(not _parts(word) <= basic_relations(a, b) for word in annotated)):
        return "annotated word disagrees with the boxes"
    if iou(a, b) > SAME:
        return "boxes nearly the same"
    small, large = sorted((_area(a), _area(b)))
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    if predicate != NEUTRAL and max(width, 0.0) * max(height, 0.0) > rules.overlap * small:
        return "too much overlap"
    if small < rules.balance * large:
        return "sizes too different"
    if small + large < rules.total_share * size[0] * size[1]:
        return "too small together"
    diagonal = min(math.hypot(box[2] - box[0], box[3] - box[1]) for box in (a, b))
    apart = math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2
    return "too far apart" if apart > rules.distance * diagonal else ""


def _parts(predicate: str) -> frozenset[str]:
    """The basic relations that a predicate implies; two for a diagonal."""
    vertical, _, horizontal = predicate.partition(" ")
    return frozenset((vertical, horizontal)) if horizontal not in ("", "of") else frozenset((predicate,))


def _checked(values: Any) -> Box | None:
    """Four finite numbers with x0 < x1 and y0 < y1; None for anything else."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        return None
    if not all(is_number(value) for value in values):
        return None
    x0, y0, x1, y1 = (float(value) for value in values)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _clipped(box: Box, size: tuple[int, int]) -> Box | None:
    """``box`` clipped to the image; None if it extends beyond the image by more than ``TOLERANCE``."""
    width, height = size
    x0, y0, x1, y1 = box
    if x0 < -TOLERANCE or y0 < -TOLERANCE or x1 > width + TOLERANCE or y1 > height + TOLERANCE:
        return None
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    return inside if inside[0] < inside[2] and inside[1] < inside[3] else None


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
