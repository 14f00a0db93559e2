"""From the objects of a picture to the pairs whose relation is certain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer.geometry import BASIC, NEUTRAL, OPPOSITE, Box, basic_relations, iou
from learn_to_steer.sources import _names
from learn_to_steer.sources._boxes import area, checked, clipped
from learn_to_steer.sources._protocol import Pairs, Skipped

FUSED = 0.9  # boxes of a higher intersection over union are one thing under two names


@dataclass(frozen=True)
class Rules:
    """Which boxes make a pair. Areas are of boxes; shares are of the picture or of the smaller box.

    ``overlap`` is asked of pairs with a direction only: neutral ones lie on each other.
    """

    least_share: float = 0.01
    least_pixels: float = 0.0
    total_share: float = 0.0
    overlap: float = 0.5
    balance: float = 0.0
    distance: float = math.inf
    unknown_names: bool = False


@dataclass(frozen=True)
class Thing:
    """One annotated object as its file has it: nothing is checked yet. ``many``: the box holds several of them."""

    name: Any
    box: Any
    many: bool = False


@dataclass(frozen=True)
class Record:
    """One annotated picture: ``size`` (width, height) and boxes in its pixels.

    ``said`` are the predicates that people wrote, by the numbers of subject and object among ``things``.
    """

    id: str
    path: Path
    size: tuple[int, int]
    things: Sequence[Thing]
    said: Mapping[tuple[int, int], Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """``subject`` is ``predicate`` of ``object``; ``size`` and ``boxes`` are None where no boxes are known."""

    id: str
    path: Path
    subject: str
    predicate: str
    object: str
    size: tuple[int, int] | None = None
    boxes: tuple[Box, Box] | None = None
    said: bool = False


class NameRule:
    """Which two names may make a pair: not one for the other, and not a pair of the benchmarks."""

    def __init__(self, exclude: Pairs) -> None:
        self._excluded = {
            frozenset((one, other))
            for first, second in (sorted(pair) for pair in exclude if len(pair) == 2)
            for one in _names.meanings(first)
            for other in _names.meanings(second)
        }

    def excludes(self, first: str, second: str) -> bool:
        """Whether the benchmarks use these two objects together, under these names or synonyms."""
        if not self._excluded:
            return False
        others = _names.meanings(second)
        return any(frozenset((one, other)) in self._excluded for one in _names.meanings(first) for other in others)


def pairs(record: Record, rules: Rules, names: NameRule, diagonals: bool, skipped: Skipped) -> Iterator[Pair]:
    """All certain pairs of a picture, each in both directions; ``skipped`` is told of objects and pairs left out."""
    usable = dict(_usable(record, rules, skipped))
    for i, j in combinations(usable, 2):
        (first, a), (second, b) = usable[i], usable[j]
        where = f"{record.id}: {first}, {second}"
        if names.excludes(first, second):
            skipped.add("pair: used by a benchmark", where)
            continue
        predicate = _predicate(a, b, diagonals)
        said = [*record.said.get((i, j), ()), *(OPPOSITE[word] for word in record.said.get((j, i), ()))]
        reason = _doubt(a, b, predicate, said, rules, record.size)
        if reason:
            skipped.add(f"pair: {reason}", where)
            continue
        yield Pair(record.id, record.path, first, predicate, second, record.size, (a, b), bool(said))
        yield Pair(record.id, record.path, second, OPPOSITE[predicate], first, record.size, (b, a), bool(said))


def _usable(record: Record, rules: Rules, skipped: Skipped) -> Iterator[tuple[int, tuple[str, Box]]]:
    """Number, name and clipped box of the objects that can be named and placed without doubt."""
    named = {i: name for i, thing in enumerate(record.things) if (name := _names.clean(thing.name))}
    stems: Counter[str] = Counter()
    for i, name in named.items():
        # A plural stands for more than one.
        stems[_names.stem(name)] += 2 if record.things[i].many or _names.is_plural(name) else 1
    for i, thing in enumerate(record.things):
        where = f"{record.id}: {thing.name!r}"
        if i not in named:
            skipped.add("object: without a name", where)
            continue
        name = named[i]
        box = checked(thing.box)
        if box is None:
            skipped.add("object: broken box", f"{where} {thing.box!r}")
        elif (inside := clipped(box, record.size)) is None:
            skipped.add("object: box outside the picture", f"{where} {thing.box!r} of {record.size}")
        elif stems[_names.stem(name)] > 1:
            skipped.add("object: several of its name in the picture", where)
        elif not _names.is_known(name) and not rules.unknown_names:
            skipped.add("object: name not in the WordNet table", where)
        elif area(inside) < max(rules.least_pixels, rules.least_share * record.size[0] * record.size[1]):
            skipped.add("object: too small", where)
        elif other := next((n for j, n in named.items() if j != i and _names.related(name, n)), None):
            skipped.add("object: may be another one (synonym or hypernym)", f"{where}, {other!r}")
        else:
            if not _names.is_known(name):
                skipped.add("object: kept, though its name is not in the WordNet table", where)
            yield i, (name, inside)


def _predicate(a: Box, b: Box, diagonals: bool) -> str:
    """The class of two boxes; "is" where no axis is clear or, without diagonals, both are."""
    found = basic_relations(a, b)
    if len(found) == 1:
        return next(iter(found))
    if found and diagonals:
        return " ".join(sorted(found, key=BASIC.index))
    return NEUTRAL


def _doubt(a: Box, b: Box, predicate: str, said: Sequence[str], rules: Rules, size: tuple[int, int]) -> str:
    """Why a pair of boxes is left out; empty when it is not."""
    if said and (predicate == NEUTRAL or any(not _parts(word) <= basic_relations(a, b) for word in said)):
        return "annotated word disagrees with the boxes"
    if iou(a, b) > FUSED:
        return "boxes nearly the same"
    small, large = sorted((area(a), area(b)))
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


def _parts(word: str) -> frozenset[str]:
    """The basic relations that a predicate asks for."""
    vertical, _, horizontal = word.partition(" ")
    return frozenset((vertical, horizontal)) if horizontal not in ("", "of") else frozenset((word,))
