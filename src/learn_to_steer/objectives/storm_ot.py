"""STORM as its paper means it: each object's attention is transported to its side, and not through the other object.

*Source:* the idea of Han et al., CVPR 2025, arXiv 2503.22168 (spatial transport), with maps and schedule as released.
*Differs:* the released cost does not depend on the targets (``_storm``); this one does, and its cost and constants are
ours: squared distance between source and target place in picture widths, plus the other object's attention at the
target (scaled to a maximum of one), plus the distance by which the target is past the other one's centre. Targets
are blobs half-way between the picture's edge and the other's centre, at the map's own height.
Entropy-regularised transport is solved in the log domain; its gradient is exact at the fixed point (Danskin), so the
iterations are not differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.maps import AttentionMaps, Layout
from learn_to_steer.objectives import _columns, _places, _storm, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict

ENTROPY = 0.05
ITERATIONS = 50
OVERLAP = 0.1
BLOB = 3 / (_columns.SIDE - 1)  # the released blobs' width, in picture widths


class StormOT(_storm.Reading):
    """Loss: the transport costs of both objects, in picture widths squared. The probability is 1 - loss, at least 0."""

    schedule: Mapping[str, Any] = _storm.schedule("storm-ot")

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        shown = _storm.normalised(_columns.object_maps(maps, words_only=self.words_only))

        def judge(b: int, pair: Pair) -> tuple[Tensor, Tensor]:
            along, smaller = _places.SIDES[pair.predicate]
            mine, other = shown[b, pair.subject], shown[b, pair.reference]
            loss = to_its_side(mine, other, along, smaller) + to_its_side(other, mine, along, not smaller)
            return loss, 1 - loss

        return _verdicts.each(pairs, judge)


def to_its_side(mine: Tensor, other: Tensor, along: int, smaller: bool) -> Tensor:
    """Cost of moving the map ``mine`` (sum one) to its side of ``other`` along an axis (0: x, 1: y)."""
    height, width = mine.shape
    y, x = torch.meshgrid(_places.axis(height, 1.0, mine), _places.axis(width, 1.0, mine), indexing="ij")
    places = torch.stack([x, y], dim=-1).reshape(-1, 2)
    centre = _places.centre(other, 1.0)[along]
    target = _places.centre(mine, 1.0).detach().clone()
    target[along] = (centre / 2 if smaller else (1 + centre) / 2).detach()
    blob = torch.exp(-((places - target) ** 2).sum(1) / (2 * BLOB**2))
    beyond = (places[:, along] - centre) * (1 if smaller else -1)
    at_target = OVERLAP * other.flatten() / other.max() + beyond.clamp_min(0)
    cost = (places[:, None] - places[None]).square().sum(-1) + at_target[None]
    return transport(mine.flatten(), blob / blob.sum(), cost)


def transport(source: Tensor, target: Tensor, cost: Tensor) -> Tensor:
    """Entropy-regularised transport cost of ``source`` (n,) to ``target`` (m,), both of sum one, by ``cost`` (n, m).

    <P, cost> + ENTROPY KL(P | source x target) at the best plan P, as its dual: differentiable in source and cost,
    by the potential and the plan.
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
    """STORM by transport for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "STORM")
    return StormOT(_columns.ends_apart(layout))
