"""Augmentation that changes the relation in a known way: exchange of subject and object, mirroring.

The authors do not augment. Besides giving more data, it removes any bias of single channels to one side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learn_to_steer.geometry import OPPOSITE


class Augmentation:
    """Exchanges and mirrors each sample of a batch with probability one half each, and changes its label accordingly.

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
    ) -> tuple[Float[Tensor, "n 2 channels side side"], Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """Augment a batch on the CPU.

        Args:
            maps: Maps of subject and object.
            label: Indices of the true relations.
            prompted: Indices of the relations in the prompts. They change with an exchange of the objects, and stay
                when the image is mirrored.
            generator: Decides which samples change.

        Returns:
            The new maps, labels and prompted relations.
        """
        for axis, table in self._changes:
            chosen = torch.rand(len(label), generator=generator) < 0.5
            maps = torch.where(chosen[:, None, None, None, None], maps.flip(axis), maps)
            label = torch.where(chosen, table[label], label)
            if axis == 1:
                prompted = torch.where(chosen, table[prompted], prompted)
        return maps, label, prompted

    def expected_counts(self, counts: Float[Tensor, "labels prompted"]) -> Float[Tensor, "labels prompted"]:
        """Return what counts of rows by label and prompted relation become on average."""
        for axis, table in self._changes:
            changed = counts[table]
            counts = (counts + (changed[:, table] if axis == 1 else changed)) / 2
        return counts


def _with_words_exchanged(predicate: str, one: str, other: str) -> str:
    return " ".join({one: other, other: one}.get(word, word) for word in predicate.split())
