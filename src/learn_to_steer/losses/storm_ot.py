"""STORM as its paper describes it: each object's attention is transported to its side, avoiding the other object.

Source: the idea of Han et al., CVPR 2025, arXiv 2503.22168 (spatial transport), with maps and schedule as released.

Differs: the released cost does not depend on the targets (see ``storm_released``); this one does. Cost and constants
are ours: the squared distance between source and target cell, plus the other object's attention at the target (scaled
to a maximum of one), plus how far the target lies past the other object's centre. Lengths are in image widths. Targets
are blobs half-way between the edge of the image and the centre of the other object, at the map's own height. Entropic
transport is solved in the log domain; its gradient is exact at the fixed point (Danskin), so the iterations are not
differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import LossAndProbability, LossOutput, ObjectPair, Scalar, StepInfo, pack_relations
from learn_to_steer.losses.storm_released import Storm, storm_schedule
from learn_to_steer.maps import AttentionMaps, Layout

ENTROPY = 0.05
ITERATIONS = 50
OVERLAP = 0.1
BLOB = 3 / (attention.SIDE - 1)  # width of the released blobs, in image widths


class StormOT(Storm):
    """Loss of a relation: the transport costs of both objects, in squared image widths.

    The probability is 1 - loss, at least 0.
    """

    schedule: Mapping[str, Any] = storm_schedule("storm-ot")

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        objects = self.normalised_maps(maps)

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            axis, smaller = attention.SIDES[pair.predicate]
            subject, reference = objects[sample, pair.subject], objects[sample, pair.reference]
            loss = cost_to_side(subject, reference, axis, smaller) + cost_to_side(reference, subject, axis, not smaller)
            return loss, 1 - loss

        return pack_relations(object_pairs, loss_of)


def cost_to_side(
    mine: Float[Tensor, "height width"], other: Float[Tensor, "height width"], axis: int, smaller: bool
) -> Scalar:
    """Return the cost of moving an object's map to its side of the other object.

    Args:
        mine: Map of the object, of sum one.
        other: Map of the other object, of sum one.
        axis: Axis of the relation (0: x, 1: y).
        smaller: Whether the object belongs to the smaller coordinates.

    Returns:
        The transport cost, in squared image widths.
    """
    height, width = mine.shape
    rows, columns = attention.coordinates(height, 1.0, mine), attention.coordinates(width, 1.0, mine)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    cells = torch.stack([x, y], dim=-1).reshape(-1, 2)
    centre = attention.centre_of_mass(other, 1.0)[axis]
    target = attention.centre_of_mass(mine, 1.0).detach().clone()
    target[axis] = (centre / 2 if smaller else (1 + centre) / 2).detach()
    blob = torch.exp(-((cells - target) ** 2).sum(1) / (2 * BLOB**2))
    beyond = (cells[:, axis] - centre) * (1 if smaller else -1)
    at_target = OVERLAP * other.flatten() / other.max() + beyond.clamp_min(0)
    cost = (cells[:, None] - cells[None]).square().sum(-1) + at_target[None]
    return transport(mine.flatten(), blob / blob.sum(), cost)


def transport(source: Float[Tensor, " n"], target: Float[Tensor, " m"], cost: Float[Tensor, "n m"]) -> Scalar:
    """Return the cost of entropic optimal transport: <P, cost> + ENTROPY KL(P | source x target) at the best plan P.

    It is computed in its dual form, whose gradient is the potential for ``source`` and the plan for ``cost``.

    Args:
        source: Distribution to move, of sum one.
        target: Distribution to reach, of sum one.
        cost: Cost of moving one unit from each source cell to each target cell.

    Returns:
        The transport cost.
    """
    tiny = torch.finfo(source.dtype).tiny
    log_source, log_target = source.detach().clamp_min(tiny).log(), target.clamp_min(tiny).log()
    with torch.no_grad():
        f = torch.zeros_like(source)
        for _ in range(ITERATIONS):
            g = -ENTROPY * (log_source[:, None] + (f[:, None] - cost) / ENTROPY).logsumexp(dim=0)
            f = -ENTROPY * (log_target[None] + (g[None] - cost) / ENTROPY).logsumexp(dim=1)
    plan = (log_source[:, None] + log_target[None] + (f[:, None] + g[None] - cost) / ENTROPY).exp()
    return (source * f).sum() + (target * g).sum() - ENTROPY * (plan.sum() - 1)


def build(layout: Layout) -> StormOT:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "STORM")
    return StormOT(attention.is_sd2_layout(layout))
