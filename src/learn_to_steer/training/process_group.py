"""The processes of one training run, as ``accelerate launch`` starts them: what each does, and what all agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn


class ProcessGroup:
    """The processes; a single one if the program was started by itself.

    Attributes:
        accelerator: The ``Accelerator``.
        number: The number of this process.
        count: How many there are.
    """

    def __init__(self) -> None:
        self.accelerator = Accelerator()
        self.number: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.number == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which rows of a batch are this process's: the number of the process, and how many there are."""
        return self.number, self.count

    def plain(self, model: nn.Module) -> Any:
        """Return a model without what ``Accelerator.prepare`` put around it."""
        return self.accelerator.unwrap_model(model) if self.count > 1 else model

    def joined(self, rows: Tensor) -> Tensor:
        """Join rows of which every process has every ``count``-th, in their order."""
        if self.count == 1:
            return rows
        parts: list[Tensor] = gather_object([rows.cpu()])
        joined = torch.empty(sum(map(len, parts)), *rows.shape[1:], dtype=rows.dtype)
        for number, part in enumerate(parts):
            joined[number :: self.count] = part
        return joined

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean of the values of all processes, which have equally many."""
        own = sum(values) / len(values)
        if self.count == 1:
            return own
        means: list[float] = gather_object([own])
        return sum(means) / len(means)

    def agreed(self, value: Any) -> Any:
        """Return the first process's value in all."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Wait until all are here."""
        self.accelerator.wait_for_everyone()
