"""Rendered scenes that show nothing but the two objects: clean training data, as synthetic pictures are."""

from __future__ import annotations

from collections.abc import Iterator

from learn_to_steer.sources import emoji
from learn_to_steer.sources._protocol import LabelledPicture, Pairs, Skipped

NOTE = f"{emoji.NOTE}; nothing else in the picture"


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
    """As the source ``emoji``, without further objects. *For:* the ablation of the paper's Table 4."""
    emoji.refuse(data, exclude)
    return emoji.drawn(limit, seed, side, diagonals, crowded=0.0)
