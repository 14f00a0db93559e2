"""Sides in language: layouts in words, and a head that reads a side off an object's tokens (train_text.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from learn_to_steer.geometry import BASIC, OPPOSITE
from learn_to_steer.prompts import indefinite_article, token_indices
from learn_to_steer_emoji.captions import PHRASES
from learn_to_steer_emoji.sprites import object_names

SIDES = {"left of": "on the left", "right of": "on the right", "above": "on the top", "below": "on the bottom"}
NOWHERE = -1  # pieces that are not said to be on a side
QUIET = 2.0  # length of the head's rows; the smaller it is, the louder a state must say its side


class SideHead(nn.Module):
    """States (..., width) to scores of the four sides; its weights cannot make up for a faint state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(BASIC), width) * width**-0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, QUIET * functional.normalize(self.weight, dim=1))

    def loss(self, states: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the pieces (n, columns, width) that have a side in ``sides`` (n, columns)."""
        said = sides != NOWHERE
        return functional.cross_entropy(self(states[said]).float(), sides[said])


@dataclass(frozen=True)
class Described:
    """Two statements of one layout of two objects; either implies the other's relation word."""

    statement: str
    other: str
    spans: tuple[tuple[int, int], ...]  # of the objects in the statement
    sides: tuple[int, ...]  # theirs


def described(rng: np.random.Generator) -> Described:
    """A layout of two random objects, in words."""
    first, second = (object_names()[i] for i in rng.choice(len(object_names()), 2, replace=False))
    predicate = str(rng.choice(BASIC))
    statement = (
        f"{indefinite_article(first)} {first} {rng.choice(PHRASES[predicate])} {indefinite_article(second)} {second}"
    )
    other = {
        0: f"the {second} {rng.choice(PHRASES[OPPOSITE[predicate]])} the {first}",
        1: f"the {first} {SIDES[predicate]}",
        2: f"the {second} {SIDES[OPPOSITE[predicate]]}",
    }[int(rng.integers(3))]
    at = len(indefinite_article(first)) + 1, len(statement) - len(second)
    spans = ((at[0], at[0] + len(first)), (at[1], len(statement)))
    return Described(statement, other, spans, (BASIC.index(predicate), BASIC.index(OPPOSITE[predicate])))


def marked(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    placed: Sequence[tuple[int, Sequence[tuple[int, int]], Sequence[int]]],
    columns: int,
) -> torch.Tensor:
    """Side of every piece (texts, columns), or NOWHERE; ``placed``: row of the text, objects' spans, their sides."""
    sides = torch.full((len(texts), columns), NOWHERE)
    for row, spans, known in placed:
        for pieces, side in zip(token_indices(tokenizer, texts[row], spans, max_length=columns), known, strict=True):
            sides[row, list(pieces)] = side
    return sides
