"""Augmentation that changes the relation in a known way: exchange of subject and object, and mirroring.

The authors do not augment. It adds data, and removes any bias of single channels to one side of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learn_to_steer.geometry import OPPOSITE


class Augmentation:
    """Exchanges and mirrors samples, each change with probability one half, and adapts their labels.

    Args:
        classes: Names of the relations, in the order of their labels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        indices = {name: index for index, name in enumerate(classes)}
        self._exchanged = torch.tensor([indices[OPPOSITE[name]] for name in classes])
        self._flipped_x = torch.tensor([indices[_with_words_exchanged(name, "left", "right")] for name in classes])
        self._flipped_y = torch.tensor([indices[_with_words_exchanged(name, "above", "below")] for name in classes])
        self._changes = ((1, self._exchanged), (-1, self._flipped_x), (-2, self._flipped_y))

    def __call__(
        self,
        maps: Float[Tensor, "n 2 channels side side"],
        label: Int64[Tensor, " n"],
        prompted: Int64[Tensor, " n"],
        generator: torch.Generator,
        size: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> tuple[Float[Tensor, "n 2 channels side side"], Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """Augment a batch. All tensors are on the CPU.

        Args:
            maps: Maps of subject and object.
            label: Indices of the true relations.
            prompted: Indices of the relations in the prompts. They change when subject and object are exchanged, but
                not when the maps are mirrored: the words stay.
            generator: Determines which samples change.
            size: The number of samples of all processes; None: these are all.
            share: Which of them these are: every so many-th (the second number), from the first number on.

        Returns:
            The new maps, labels and prompted relations.
        """
        for axis, table in self._changes:
            changed = torch.rand(size or len(label), generator=generator)[share[0] :: share[1]] < 0.5
            maps = torch.where(changed[:, None, None, None, None], maps.flip(axis), maps)
            label = torch.where(changed, table[label], label)
            if axis == 1:
                prompted = torch.where(changed, table[prompted], prompted)
        return maps, label, prompted

    def expected_counts(self, counts: Float[Tensor, "labels prompted"]) -> Float[Tensor, "labels prompted"]:
        """Return the expected number of rows by label and prompted relation after augmentation.

        Args:
            counts: The number of rows by label and prompted relation before it.
        """
        for axis, table in self._changes:
            moved = counts[table]
            counts = (counts + (moved[:, table] if axis == 1 else moved)) / 2
        return counts


def _with_words_exchanged(predicate: str, one: str, other: str) -> str:
    return " ".join({one: other, other: one}.get(word, word) for word in predicate.split())
