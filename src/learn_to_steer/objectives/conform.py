"""CONFORM: maps of one object attract each other, maps of different objects repel, by a contrastive loss.

*Source:* Meral et al., CVPR 2024, arXiv 2312.06059 (NT-Xent on flattened maps). Constants as in the authors' notebook:
no second softmax over the columns, temperature 0.5, updates in the first 60 per cent of the steps, 20 more at 0, 20
and 40 per cent without a target.
*Differs:* a class is one object without adjectives, which relations do not carry; its positives are its own maps of
the denoising step before, so that the first step has nothing to compare and does not move. The method knows no
directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec
from learn_to_steer.objectives import _columns, _verdicts
from learn_to_steer.objectives._protocol import NEVER, Clock, Pair, Verdict
from learn_to_steer.objectives._schedules import published

TEMPERATURE = 0.5
Memory = tuple[int, Tensor, Tensor | None]  # a step, the latest maps in it, and the maps of the step before


class Conform:
    """One loss for all objects of a picture; the probability is exp(-loss), the positives' mean share of attraction."""

    schedule: Mapping[str, Any] = published(
        "conform", window=0.6, refinement=((0.0, 20, NEVER), (0.2, 20, NEVER), (0.4, 20, NEVER))
    )
    spec = MapSpec(columns="every", choose=_columns.coarse)

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "CONFORM")

    def predicates(self) -> tuple[str, ...]:
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        shown = _columns.object_maps(maps, sharpness=None)
        memory = tuple(_remembered(old, clock.step, new.detach()) for old, new in zip(maps.memory, shown, strict=True))

        def judge(b: int) -> tuple[Tensor, Tensor]:
            objects = sorted({number for pair in pairs[b] for number in (pair.subject, pair.reference)})
            embedded, classes = shown[b, objects], torch.arange(len(objects))
            before = memory[b][2]
            if before is not None:
                embedded, classes = torch.cat([embedded, before[objects]]), classes.repeat(2)
            loss = nt_xent(embedded.flatten(1), classes)
            return loss, (-loss).exp()

        verdict = _verdicts.whole(pairs, judge)
        return Verdict(verdict.loss, verdict.probability, memory=memory)


def _remembered(old: Memory | None, step: int, maps: Tensor) -> Memory:
    if old is None:
        return step, maps, None
    return step, maps, old[2] if old[0] == step else old[1]


def nt_xent(embedded: Tensor, classes: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean over ordered pairs (a, p) of one class of -log(e^s(a,p) / (e^s(a,p) + sum over other classes e^s(a,n))).

    ``embedded`` (n, d), ``classes`` (n,) whole numbers; s is cosine similarity over temperature. Other members of the
    class are not in the denominator. Zero when no class has two members.
    """
    unit = functional.normalize(embedded, dim=1)
    similarity = unit @ unit.T / temperature
    same = (classes[:, None] == classes[None]).to(embedded.device)
    against = similarity.masked_fill(same, float("-inf")).logsumexp(dim=1, keepdim=True).expand_as(similarity)
    losses = torch.logaddexp(similarity, against) - similarity
    positive = same & ~torch.eye(len(classes), dtype=torch.bool, device=same.device)
    if not positive.any():
        return similarity.sum() * 0.0
    return losses[positive].mean()


def build(layout: Layout) -> Conform:
    """CONFORM for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "CONFORM")
    return Conform()
