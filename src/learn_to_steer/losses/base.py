"""The interface of a loss: attention maps and relations in, one loss and one probability per relation out.

A plug-in is one file of this folder, or a module that an installed package registers. It offers
``build(layout) -> Loss``, which makes the loss for the maps of one model. Only ``learned`` differs: it is made from a
classifier. A loss sees attention maps, never the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

NEVER = 2.0
"""A stop threshold that no probability reaches, for methods that are published without a stop rule."""

Scalar = Float[Tensor, ""]


@dataclass(frozen=True)
class ObjectPair:
    """One relation of a sample: ``objects[subject] predicate objects[reference]``.

    Attributes:
        subject: Index of the first object.
        predicate: Where the subject should be, seen from the reference ("left of").
        reference: Index of the second object.
    """

    subject: int
    predicate: str
    reference: int


@dataclass(frozen=True)
class StepInfo:
    """The denoising step in which the maps were captured.

    Attributes:
        noise_level: Noise level in [0, 1], where 1 is pure noise.
        step: Index of the denoising step; 0 is the noisiest.
        steps: Number of denoising steps.
    """

    noise_level: float
    step: int
    steps: int = 50

    @property
    def step_of_50(self) -> float:
        """Index of the step on a schedule of 50 steps, for which the papers give their constants."""
        return self.step * 50 / self.steps


@dataclass(frozen=True)
class LossOutput:
    """What a loss returns. Samples with fewer relations are padded with zero loss and probability one.

    Attributes:
        loss: The loss of every relation, differentiable.
        probability: The probability that the relation holds. Handcrafted losses have none. They return a score in
            [0, 1] that grows with success (see each class); the stop rule is applied to it.
        refinement: Another loss for refinement iterations, if the paper has one.
        search: Another loss for the search of the initial noise, if the paper has one.
        refinable: Whether the method allows refinement; None for always.
        memory: Per sample, any value that the loss wants to get back as ``AttentionMaps.memory`` in the next call.
    """

    loss: Float[Tensor, "batch relations"]
    probability: Float[Tensor, "batch relations"]
    refinement: Float[Tensor, "batch relations"] | None = None
    search: Float[Tensor, "batch relations"] | None = None
    refinable: Bool[Tensor, "batch relations"] | None = None
    memory: tuple[Any, ...] = ()


class Loss(Protocol):
    """A loss on attention maps.

    Attributes:
        spec: Which maps the loss reads.
        schedule: The published steering settings of the method, by name; others keep the defaults of
            ``SteeringConfig``.
    """

    spec: MapSpec
    schedule: Mapping[str, Any]

    def check(self, layout: Layout) -> None:
        """Refuse maps that the loss cannot use.

        Args:
            layout: The layout of the model's maps.

        Raises:
            MismatchError: The loss was made for another model.
            UnsupportedError: The method does not apply to this family of models.
        """

    def predicates(self) -> tuple[str, ...]:
        """The predicates that the loss supports."""

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """Compute loss and probability of every relation.

        Args:
            maps: The attention maps that ``spec`` describes.
            object_pairs: The relations of every sample.
            info: The denoising step.

        Returns:
            Loss and probability, each of shape (batch, relations).
        """


LossAndProbability = tuple[Scalar, Scalar]


def pack_relations(
    object_pairs: Sequence[Sequence[ObjectPair]], loss_of: Callable[[int, ObjectPair], LossAndProbability]
) -> LossOutput:
    """Evaluate a loss that is defined for a single relation.

    Args:
        object_pairs: The relations of every sample.
        loss_of: Takes the index of a sample and one of its relations; returns loss and probability.

    Returns:
        Loss and probability of all relations, padded; probabilities are detached and clamped to [0, 1].
    """
    return _pack([[loss_of(sample, pair) for pair in row] for sample, row in enumerate(object_pairs)])


def pack_images(
    object_pairs: Sequence[Sequence[ObjectPair]], loss_of: Callable[[int], LossAndProbability]
) -> LossOutput:
    """Evaluate a loss that is defined for a whole image; all relations of a sample get the same values.

    Args:
        object_pairs: The relations of every sample.
        loss_of: Takes the index of a sample; returns loss and probability.

    Returns:
        Loss and probability of all relations, like those of ``pack_relations``.
    """
    return _pack([[loss_of(sample)] * len(row) for sample, row in enumerate(object_pairs)])


def pad_rows(rows: Sequence[Sequence[Scalar]], filler: float) -> Float[Tensor, "batch relations"]:
    """Stack rows of scalars, filling up the short ones.

    Args:
        rows: One row of scalar tensors per sample; at least one row is not empty.
        filler: The value of missing entries.

    Returns:
        The stacked tensor.
    """
    longest = max(len(row) for row in rows)
    like = next(value for row in rows for value in row)
    padding = like.new_full((), filler)
    return torch.stack([torch.stack([*row, *[padding] * (longest - len(row))]) for row in rows])


def _pack(rows: Sequence[Sequence[LossAndProbability]]) -> LossOutput:
    loss = pad_rows([[loss for loss, _ in row] for row in rows], 0.0)
    return LossOutput(loss, pad_rows([[share.detach().clamp(0, 1) for _, share in row] for row in rows], 1.0))
