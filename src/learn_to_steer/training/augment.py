"""Changes of a sample whose relation is known: subject and object exchanged, the picture mirrored.

*Differs:* the authors do not augment. Besides more data it takes away whatever channels say by being lopsided.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learn_to_steer.geometry import OPPOSITE


class Augment:
    """Exchanges and mirrors each sample of a batch with chance one half each, its label accordingly."""

    def __init__(self, classes: Sequence[str]) -> None:
        places = {name: index for index, name in enumerate(classes)}
        self._swapped = torch.tensor([places[OPPOSITE[name]] for name in classes])
        self._sideways = torch.tensor([places[_exchanged(name, "left", "right")] for name in classes])
        self._upside = torch.tensor([places[_exchanged(name, "above", "below")] for name in classes])
        self._changes = ((1, self._swapped), (-1, self._sideways), (-2, self._upside))

    def __call__(
        self, maps: Tensor, label: Tensor, prompted: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``maps`` (n, 2, channels, side, side), ``label`` and ``prompted`` (n,), all on the CPU.

        The prompted relation goes with the objects when they are exchanged, and stays when the picture is mirrored.
        """
        for axis, table in self._changes:
            chosen = torch.rand(len(label), generator=generator) < 0.5
            maps = torch.where(chosen[:, None, None, None, None], maps.flip(axis), maps)
            label = torch.where(chosen, table[label], label)
            if axis == 1:
                prompted = torch.where(chosen, table[prompted], prompted)
        return maps, label, prompted

    def joint(self, counts: Tensor) -> Tensor:
        """What ``counts`` (label, prompted) of rows become on average."""
        for axis, table in self._changes:
            changed = counts[table]
            counts = (counts + (changed[:, table] if axis == 1 else changed)) / 2
        return counts


def _exchanged(predicate: str, one: str, other: str) -> str:
    return " ".join({one: other, other: one}.get(word, word) for word in predicate.split())
