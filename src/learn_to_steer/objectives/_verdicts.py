"""Losses of single relations, put into a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from learn_to_steer.objectives._protocol import Pair, Verdict

Judged = tuple[Tensor, Tensor]  # the loss of a relation, and the number on which its stop rule is stated


def each(pairs: Sequence[Sequence[Pair]], judge: Callable[[int, Pair], Judged]) -> Verdict:
    """``judge`` asked of every pair of every sample (its number, the pair)."""
    judged = [[judge(b, pair) for pair in sample] for b, sample in enumerate(pairs)]
    return Verdict(table([[loss for loss, _ in row] for row in judged], 0.0), _bounded(judged))


def whole(pairs: Sequence[Sequence[Pair]], judge: Callable[[int], Judged]) -> Verdict:
    """As ``each`` for a loss of the whole picture: every relation of a sample carries the same one."""
    judged = [[judge(b)] * len(sample) for b, sample in enumerate(pairs)]
    return Verdict(table([[loss for loss, _ in row] for row in judged], 0.0), _bounded(judged))


def table(rows: Sequence[Sequence[Tensor]], filler: float) -> Tensor:
    """Scalars as (batch, relations), short rows filled up."""
    longest = max(len(row) for row in rows)
    like = next(value for row in rows for value in row)
    padding = like.new_full((), filler)
    return torch.stack([torch.stack([*row, *[padding] * (longest - len(row))]) for row in rows])


def _bounded(judged: Sequence[Sequence[Judged]]) -> Tensor:
    return table([[probability.detach().clamp(0, 1) for _, probability in row] for row in judged], 1.0)
