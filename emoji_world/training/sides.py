"""Sides in language, for train_text.py: layouts in words, and a head that tells an object's side from its tokens."""

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
NOWHERE = -1  # for pieces that the text puts on no side
QUIET = 2.0  # norm of the head's rows; the smaller it is, the more clearly a state must encode its side


class SideHead(nn.Module):
    """Scores the four sides by a text encoder's states; its rows have a fixed norm, so that only states can grow."""

    def __init__(self, width: int) -> None:
        """Build the head with random weights for states of ``width`` numbers."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(BASIC), width) * width**-0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Score states (..., width): (..., sides)."""
        return functional.linear(states, QUIET * functional.normalize(self.weight, dim=1))

    def loss(self, states: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
        """Compute the cross-entropy over the pieces (n, columns, width) that have a side in ``sides`` (n, columns)."""
        known = sides != NOWHERE
        return functional.cross_entropy(self(states[known]).float(), sides[known])


@dataclass(frozen=True)
class Described:
    """Two statements about one layout of two objects; each implies the relation word of the other.

    Attributes:
        statement: "a dog to the left of a cat".
        other: "the cat on the right", or the like.
        spans: First and last character (exclusive) of the two objects in ``statement``.
        sides: The sides of the two objects, as indices of ``BASIC``.
    """

    statement: str
    other: str
    spans: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]


def described(rng: np.random.Generator) -> Described:
    """Describe a random layout of two random objects."""
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
    """Find the side of every piece of some texts.

    Args:
        tokenizer: Cuts texts into pieces.
        texts: The texts.
        placed: Which objects have a side: row of a text, spans of objects in it, and their sides.
        columns: Pieces of a text, padding included.

    Returns:
        Indices of ``BASIC`` (texts, columns); ``NOWHERE`` for pieces without a side.
    """
    sides = torch.full((len(texts), columns), NOWHERE)
    for row, spans, known in placed:
        for pieces, side in zip(token_indices(tokenizer, texts[row], spans, max_length=columns), known, strict=True):
            sides[row, list(pieces)] = side
    return sides
