"""Pictures that a model drew, with what is seen in them, and the rows of a collection that come of them."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.collection.map_extractor import ShardContent
from learn_to_steer.collection.picture_labels import Detections, Verdict
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.maps import Layout
from learn_to_steer.sources import PlannedPicture, SkipLog

LACKS_ONE = "pair: one of its objects is missing, beyond half of 'is'"


@dataclass(frozen=True)
class Pair:
    """Two objects of a picture that become rows.

    Attributes:
        indices: Of the objects in the prompt.
        prompted: What the prompt says of them.
        verdict: What the detectors see of them.
        maps: Their maps under that prompt.
    """

    indices: tuple[int, int]
    prompted: str
    verdict: Verdict
    maps: Float[Tensor, "levels 2 channels side side"]


@dataclass
class DrawnPicture:
    """A picture, what is seen in it, and the pairs of its objects that can be used.

    Attributes:
        number: Its number in the collection.
        plan: What was to be drawn.
        found: The detections of every detector.
        verdicts: What is seen of every pair of the plan.
        pairs: The pairs that become rows.
        latents: Its latents on the path, as long as they may be needed.
        wrong_plan: The plan with the prompt under which it was read again; None if it was not.
        wrong_pairs: The pairs under that prompt.
    """

    number: int
    plan: PlannedPicture
    found: Sequence[Detections]
    verdicts: Sequence[Verdict]
    pairs: list[Pair]
    latents: Float[Tensor, "levels *latents"] | None
    wrong_plan: PlannedPicture | None = None
    wrong_pairs: Sequence[Pair] = ()

    def with_wrong_words(self, classes: Sequence[str], seed: int) -> PlannedPicture:
        """Return the plan with other words for its joined pairs, drawn evenly from those that are wrong and new.

        Args:
            classes: Names of all relations.
            seed: The result depends only on it, the classes and the picture.
        """
        rng = random.Random(number_of(seed, self.plan.id, "wrong"))
        labels = {pair.indices: pair.verdict.label for pair in self.pairs}
        joins = tuple(
            rng.choice([name for name in classes if name not in (labels[n, n + 1], join)])
            if (n, n + 1) in labels
            else join
            for n, join in enumerate(self.plan.joins)
        )
        return replace(self.plan, joins=joins)

    def add_wrong(self, plan: PlannedPicture, maps: Float[Tensor, "levels objects channels side side"]) -> None:
        """Add the rows of a prompt with wrong words, for the pairs that it says something new of.

        Args:
            plan: The plan with that prompt.
            maps: The maps of all objects under it.
        """
        said = {(first, second): word for first, second, word in plan.pairs}
        self.wrong_plan, self.latents = plan, None
        self.wrong_pairs = [
            replace(pair, prompted=said[pair.indices], maps=maps[:, list(pair.indices)].clone())
            for pair in self.pairs
            if said[pair.indices] != pair.prompted
        ]

    def entry(self) -> dict[str, Any]:
        """Return what is written about the picture, so that it can be shown, and labelled anew."""
        used = {pair.indices for pair in self.pairs}
        pairs = [
            {
                "subject": self.plan.objects[first],
                "prompted": prompted,
                "object": self.plan.objects[second],
                "relation": verdict.label,
                "lacks_one": verdict.lacks_one,
                "used": (first, second) in used,
                "reason": verdict.reason,
            }
            for (first, second, prompted), verdict in zip(self.plan.pairs, self.verdicts, strict=True)
        ]
        return {
            "picture": self.plan.id,
            "group": self.number,
            "file": f"{self.plan.id}.png",
            "prompt": self.plan.prompt()[0],
            "objects": list(self.plan.objects),
            "detections": [[one.as_dict() for one in detections] for detections in self.found],
            "pairs": pairs,
        }

    def names(self, first: int, second: int) -> str:
        """Name two objects, for the log of what is left out."""
        return f"{self.plan.id}: {self.plan.objects[first]}, {self.plan.objects[second]}"


def limit_missing(drawn: Sequence[DrawnPicture]) -> SkipLog:
    """Drop pairs that lack an object, down to half of those with the label "is".

    Args:
        drawn: The pictures, whose ``pairs`` become fewer.

    Returns:
        The pairs that cannot be used, and why.
    """
    skipped = SkipLog()
    left = sum(one.verdict.label == NEUTRAL and not one.verdict.lacks_one for each in drawn for one in each.pairs)
    for picture in drawn:
        for (first, second, _), verdict in zip(picture.plan.pairs, picture.verdicts, strict=True):
            if verdict.label is None:
                skipped.add(verdict.reason, picture.names(first, second))
        kept = []
        for pair in picture.pairs:
            if pair.verdict.lacks_one and left == 0:
                skipped.add(LACKS_ONE, picture.names(*pair.indices))
                continue
            left -= pair.verdict.lacks_one
            kept.append(pair)
        picture.pairs = kept
    return skipped


def obedience(drawn: Sequence[DrawnPicture]) -> tuple[int, int]:
    """Count how many relation words are about two objects that are seen, and how many of these words are true."""
    seen = [
        (prompted, verdict.label)
        for picture in drawn
        for (_, _, prompted), verdict in zip(picture.plan.pairs, picture.verdicts, strict=True)
        if prompted != NEUTRAL and verdict.label is not None and not verdict.lacks_one
    ]
    return len(seen), sum(prompted == label for prompted, label in seen)


def label_counts(drawn: Sequence[DrawnPicture]) -> dict[str, int]:
    """Count the pairs that become rows, by label."""
    return dict(Counter(str(pair.verdict.label) for picture in drawn for pair in picture.pairs))


def shard_content(drawn: Sequence[DrawnPicture], classes: Sequence[str], layout: Layout, seed: int) -> ShardContent:
    """Return the rows of pictures, ordered by picture, prompt (as drawn, wrong), pair and level.

    Args:
        drawn: The pictures.
        classes: Names of the relations, in the order of their labels.
        layout: The layout of the maps.
        seed: Of the collection.
    """
    rows: list[dict[str, Any]] = []
    maps: list[Tensor] = []
    dropped = []
    for picture in drawn:
        if not picture.pairs:
            reasons = [verdict.reason or LACKS_ONE for verdict in picture.verdicts]
            dropped.append({"picture": picture.plan.id, "reason": max(sorted(set(reasons)), key=reasons.count)})
        for pair in picture.pairs:
            maps.append(pair.maps)
            rows += _rows(picture.number, picture.plan, "drawn", pair, seed)
        for pair in picture.wrong_pairs:
            maps.append(pair.maps)
            rows += _rows(picture.number, picture.wrong_plan or picture.plan, "wrong", pair, seed)
    side = layout.side
    tensors = {
        "maps": torch.cat(maps) if maps else torch.zeros(0, 2, layout.channels, side, side, dtype=torch.float16),
        "label": torch.tensor([classes.index(row["relation"]) for row in rows], dtype=torch.int64),
        "prompted": torch.tensor([classes.index(row["prompted"]) for row in rows], dtype=torch.int64),
        "level": torch.tensor([row["level"] for row in rows], dtype=torch.int64),
        "group": torch.tensor([row["group"] for row in rows], dtype=torch.int64),
    }
    return ShardContent(tensors, rows, dropped, pictures=[picture.entry() for picture in drawn])


def number_of(*parts: object) -> int:
    """Return a number below 2**48 that depends on ``parts`` alone, in every process."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:6])


def _rows(number: int, plan: PlannedPicture, kind: str, pair: Pair, seed: int) -> list[dict[str, Any]]:
    subject, reference = (plan.objects[index] for index in pair.indices)
    shared = {
        "picture": plan.id,
        "group": number,
        "subject": subject,
        "relation": pair.verdict.label,
        "object": reference,
        "prompt": plan.prompt()[0],
        "prompted": pair.prompted,
        "kind": kind,
    }
    noise = number_of(seed, plan.id, "noise")
    return [shared | {"level": level, "seed": noise, "quality": 0.0} for level in range(len(pair.maps))]
