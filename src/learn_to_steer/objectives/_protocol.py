"""What an objective is: maps and relations in, one scalar per sample and relation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

NEVER = 2.0  # a threshold that no probability reaches: the published method has no stop rule


@dataclass(frozen=True)
class Pair:
    """One relation of a sample: ``objects[subject] predicate objects[reference]``."""

    subject: int
    predicate: str
    reference: int


@dataclass(frozen=True)
class Clock:
    """When the maps were taken: the noise level in [0, 1] and the index of the denoising step, of how many."""

    level: float
    step: int
    steps: int = 50

    @property
    def of_fifty(self) -> float:
        """The step's place in a schedule of 50 steps, which the papers' step numbers mean."""
        return self.step * 50 / self.steps


@dataclass(frozen=True)
class Verdict:
    """Loss and probability that the relation holds, both (batch, relations); padding is NaN-free zeros/ones.

    Handcrafted losses have no probability; theirs is a number in [0, 1] that grows with success, on which the stop
    rule is stated (each says which). ``refinement`` and ``search`` are other losses for refinement passes and for the
    search of the initial noise, where a paper has them; ``refinable`` (batch, relations) says where its gate allows
    refinement. ``memory`` is, per sample, what the objective wants to see again as ``AttentionMaps.memory``.
    """

    loss: Tensor
    probability: Tensor
    refinement: Tensor | None = None
    search: Tensor | None = None
    refinable: Tensor | None = None
    memory: tuple[Any, ...] = ()


class Objective(Protocol):
    """A loss on maps. One class a file, twins share what they read; objectives see maps, never a model.

    ``schedule`` are the steering settings that the method is published with, as far as they differ from ours: what the
    gradient moves, when, how far and how often.
    A plug-in file offers ``build(layout) -> Objective`` for the maps of one model, but for ``learned``, which is made
    of a classifier.
    """

    spec: MapSpec
    schedule: Mapping[str, Any]

    def check(self, layout: Layout) -> None:
        """Raise MismatchError or UnsupportedError when maps of ``layout`` mean nothing to this objective."""

    def predicates(self) -> tuple[str, ...]:
        """The predicates it can ask for."""

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        """Judge every pair of every sample."""
