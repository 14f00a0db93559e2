"""The source ``drawn``: pictures that the model draws itself, of prompts that are planned here.

Two thirds of the prompts name two objects, the others three to five, since pairs from pictures of two objects alone
teach too little about crowded ones. What the prompt says of two objects is drawn evenly from all relations and "and",
independent of anything else: what the model makes of it, a detector sees afterwards.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sources import _nouns
from learn_to_steer.sources._candidates import NameFilter
from learn_to_steer.sources.base import LabelledImages, NamePairs, PlannedPicture, SourceRequest, Split

NOTE = "drawn by the model itself; what the model's licence says of its pictures holds"

CROWDED = 1 / 3  # share of the pictures with three to five objects
MOST_OBJECTS = 5
TRIES = 20_000  # to find objects of which no two are excluded
FEW = 200  # below this number of pictures, a fourth is validated on and none is kept for a test


def images(request: SourceRequest) -> LabelledImages:
    """Refuse: the pictures do not exist before the model draws them.

    Args:
        request: Has no effect.

    Raises:
        DataError: Always.
    """
    raise DataError("the source drawn has no pictures of its own: the model draws them; use it with --inversion path")


def planned(request: SourceRequest) -> list[PlannedPicture]:
    """Return the pictures to draw. They depend on the request alone.

    Args:
        request: Its ``objects`` are drawn from; no two that are excluded, or may be the same thing, come together.

    Returns:
        ``request.limit`` pictures.

    Raises:
        DataError: No two of the objects may come together.
    """
    names = tuple(sorted(set(request.objects)))
    may_meet = _allowed_pairs(names, request.exclude)
    if not may_meet:
        raise DataError(
            f"no two of the {len(names)} objects may be drawn together (names of one thing, or pairs of a benchmark); "
            "name more objects (--objects)"
        )
    relations = (*BASIC, *(DIAGONAL if request.diagonals else ()), NEUTRAL)
    return [_picture(index, names, may_meet, relations, request) for index in range(request.limit)]


@cache
def common_objects() -> tuple[str, ...]:
    """Return the names of objects that text-to-image models usually draw well."""
    names = json.loads(files(__package__).joinpath("drawable_nouns.json").read_text(encoding="utf-8"))["names"]
    return tuple(names)


def read_objects(path: str | Path) -> tuple[str, ...]:
    """Read names of objects from a text file: one on each line; empty lines and lines that begin with # are skipped.

    Args:
        path: The file.

    Returns:
        The names in lower case, each once.

    Raises:
        DataError: The file cannot be read, a line is no name, or there are fewer than two names.
    """
    try:
        text = storage.read_bytes(path, storage.LARGEST_OF_PEOPLE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it so, with one object on each line") from error
    names: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name = _nouns.normalise(line)
        if name is None:
            shown = line.strip()[:60]
            raise DataError(f"{path}, line {number}: {shown!r} is no name of an object; write it like: teddy bear")
        names[name] = None
    if len(names) < 2:
        raise DataError(f"{path} names {len(names)} objects, and a relation needs two; write one name on each line")
    return tuple(names)


@lru_cache(maxsize=8)
def _allowed_pairs(names: tuple[str, ...], exclude: NamePairs) -> NamePairs:
    excluded = NameFilter(exclude)
    return frozenset(
        frozenset(pair) for pair in combinations(names, 2) if not _nouns.related(*pair) and not excluded.excludes(*pair)
    )


def _picture(
    index: int,
    names: Sequence[str],
    may_meet: NamePairs,
    relations: Sequence[str],
    request: SourceRequest,
) -> PlannedPicture:
    rng = random.Random(f"{request.seed}|{index}|drawn")
    wanted = rng.randint(3, MOST_OBJECTS) if rng.random() < CROWDED else 2
    objects = _objects(min(wanted, len(names)), names, may_meet, rng)
    joins = tuple(rng.choice(relations) for _ in objects[1:])
    apart = [pair for pair in combinations(range(len(objects)), 2) if pair[1] - pair[0] > 1]
    further: tuple[tuple[int, int], ...] = ()
    if apart:
        first, second = rng.sample(rng.choice(apart), 2)
        further = ((first, second),)
    return PlannedPicture(f"drawn-{request.seed}-{index}", objects, joins, _split(index, request.limit), further)


def _objects(wanted: int, names: Sequence[str], may_meet: NamePairs, rng: random.Random) -> tuple[str, ...]:
    """So many objects that may all meet, or fewer where these are not found."""
    for count in range(wanted, 1, -1):
        for _ in range(TRIES // len(names)):
            chosen = rng.sample(names, count)
            if all(frozenset(pair) in may_meet for pair in combinations(chosen, 2)):
                return tuple(chosen)
    pair = rng.choice(sorted(sorted(pair) for pair in may_meet))  # where hardly any two may meet
    return tuple(rng.sample(pair, 2))


def _split(index: int, limit: int) -> Split:
    if limit < FEW:
        return "val" if index % 4 == 1 else "train"
    return {1: "val", 2: "test"}.get(index % 10, "train")  # type: ignore[return-value]
