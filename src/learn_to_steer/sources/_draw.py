"""From the pairs of many pictures to labelled pictures: balanced, split by picture, every file looked at."""

from __future__ import annotations

import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sources._pairs import NameRule, Pair, Record, Rules, pairs
from learn_to_steer.sources._protocol import SPLITS, LabelledPicture, Pairs, Skipped, Split
from learn_to_steer.sources._square import BROKEN, Cut, moved, picture_digest, picture_size, window

SHORT = "class: fewer pictures than its share of the limit"

Listed = TypeVar("Listed", Record, Pair)


def from_boxes(
    source: str,
    records: Iterable[Record],
    rules: Rules,
    *,
    limit: int,
    seed: int,
    side: int,
    diagonals: bool,
    exclude: Pairs,
    skipped: Skipped,
) -> Iterator[LabelledPicture]:
    """Labelled pictures out of annotated ones; see ``draw``. ``skipped`` is told of everything left out."""
    names = NameRule(exclude)
    offers = (list(pairs(record, rules, names, diagonals, skipped)) for record in present(records, skipped))
    predicates = (*BASIC, *(DIAGONAL if diagonals else ()), NEUTRAL)
    return draw(source, offers, predicates, limit=limit, seed=seed, side=side, skipped=skipped)


def draw(
    source: str,
    offers: Iterable[Sequence[Pair]],
    predicates: Sequence[str],
    *,
    limit: int,
    seed: int,
    side: int,
    skipped: Skipped,
) -> Iterator[LabelledPicture]:
    """One pair of each picture, the ``predicates`` taking turns until ``limit``; no class makes up for a short one.

    ``offers`` has the pairs of one picture after the other. Each is given to the class that has fewest so far. Which
    split a picture is in depends on ``seed`` and its id alone: one in ten is val, another test. Every tenth turn is
    val, another test, as long as there are such pictures. A picture is decoded once before it is handed out; broken
    ones and copies of earlier ones are passed over.
    """
    pools: dict[tuple[str, Split], list[Pair]] = defaultdict(list)
    for offered in offers:
        if not offered:
            continue
        split = _split(offered[0].id, seed)
        pick = random.Random(_number(offered[0].id, seed, "pair"))
        chosen = min({pair.predicate for pair in offered}, key=lambda p: (len(pools[p, split]), predicates.index(p)))
        fitting = [pair for pair in offered if pair.predicate == chosen]
        pools[chosen, split].append(pick.choice([pair for pair in fitting if pair.said] or fitting))
    for pool in pools.values():
        pool.sort(key=lambda pair: _number(pair.id, seed, "order"))
    seen: set[str] = set()
    for index in range(limit):
        if not any(pools.values()):  # a limit far beyond what there is costs nothing
            for place, predicate in enumerate(predicates):
                first = index + (place - index) % len(predicates)
                left = -(-(limit - first) // len(predicates))
                if left > 0:
                    skipped.add(SHORT, predicate, left)
            return
        predicate, turn = predicates[index % len(predicates)], index // len(predicates)
        wanted: Split = "val" if turn % 10 == 1 else "test" if turn % 10 == 2 else "train"
        for split in (wanted, *(other for other in SPLITS if other != wanted)):
            found = _next(source, pools[predicate, split], split, side, seen, skipped)
            if found is not None:
                yield found
                break
        else:
            skipped.add(SHORT, predicate)


def present(records: Iterable[Listed], skipped: Skipped) -> Iterator[Listed]:
    """The records (or pairs) whose picture is there and has not been listed before."""
    seen: set[str] = set()
    for record in records:
        place = os.path.normpath(record.path)
        if not os.path.isfile(place):
            skipped.add("picture: file is missing", record.path)
        elif place in seen:
            skipped.add("picture: listed twice", record.id)
        else:
            seen.add(place)
            yield record


def _next(
    source: str, pool: list[Pair], split: Split, side: int, seen: set[str], skipped: Skipped
) -> LabelledPicture | None:
    """The last pair of ``pool`` whose picture is sound, taken out together with those that are not."""
    while pool:
        pair = pool.pop()
        try:
            size, digest = picture_size(pair.path), picture_digest(pair.path)
        except BROKEN as error:
            skipped.add("picture: cannot be decoded", f"{pair.path}: {error}")
            continue
        if pair.size is not None and size != pair.size:
            skipped.add("picture: not of the annotated size", f"{pair.path} is {size}, not {pair.size}")
            continue
        if digest in seen:
            skipped.add("picture: copy of another one", pair.path)
            continue
        seen.add(digest)
        square = window(size, pair.boxes or ((0, 0, *size),))  # objects in unknown places: pad, cut nothing off
        return LabelledPicture(
            id=f"{source}-{pair.id}",
            subject=pair.subject,
            predicate=pair.predicate,
            object=pair.object,
            boxes=(moved(pair.boxes[0], square, side), moved(pair.boxes[1], square, side)) if pair.boxes else None,
            split=split,
            pixels=Cut(pair.path, square, side),
        )
    return None


def _split(id: str, seed: int) -> Split:
    place = _number(id, seed, "split") % 10
    return "val" if place == 0 else "test" if place == 1 else "train"


def _number(id: str, seed: int, purpose: str) -> int:
    """A number that depends on these three alone, in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{purpose}|{id}".encode("utf-8", "surrogatepass")).digest()[:8])
