"""What an objective is: maps and relations in, one scalar per sample and relation out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

Update = Literal["latents", "noise", "prediction"]


@dataclass(frozen=True)
class Pair:
    """One relation of a sample: ``objects[subject] predicate objects[reference]``."""

    subject: int
    predicate: str
    reference: int


@dataclass(frozen=True)
class Clock:
    """When the maps were taken: the noise level in [0, 1] and the index of the denoising step."""

    level: float
    step: int


@dataclass(frozen=True)
class Verdict:
    """Loss and probability that the relation holds, both (batch, relations); padding is NaN-free zeros/ones."""

    loss: Tensor
    probability: Tensor


class Objective(Protocol):
    """A loss on maps. One final class a file; objectives see maps, never a model."""

    spec: MapSpec
    update: Update

    def check(self, layout: Layout) -> None:
        """Raise MismatchError when maps of ``layout`` mean nothing to this objective."""

    def predicates(self) -> tuple[str, ...]:
        """The predicates it can ask for."""

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        """Judge every pair of every sample."""
