"""Rendered scenes with one to three further objects in each: cluttered training data, as photographs are."""

from __future__ import annotations

from collections.abc import Iterator

from learn_to_steer.sources import emoji
from learn_to_steer.sources._protocol import LabelledPicture, Pairs, Skipped

NOTE = f"{emoji.NOTE}; further objects in every picture"


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
    """As the source ``emoji``, always with further objects. *For:* the ablation of the paper's Table 4."""
    emoji.refuse(data, exclude)
    return emoji.drawn(limit, seed, side, diagonals, crowded=1.0)
