"""InitNO: a better initial noise, in which every object has its own place; then the latents are kept on course.

*Source:* Guo et al., CVPR 2024, arXiv 2404.04650 (response, conflict, clean and align terms). Constants as published:
noise z exp(v/2) + mu is searched in up to 5 rounds of 10 Adam passes, 50 more on the best round when none succeeds;
then one update on the response term before each step of the first half, and at 20 and 40 per cent up to 20 passes
on all terms until response is at most 0.2 and conflict at most 0.3.
*Differs:* rounds are ranked by the probability below (published: by the sum of two terms), and one that succeeds is
taken at once (the published code may throw it away); the inner loop on the noise's prior ends after 50 passes (the
published one can run for ever on SD2.x). The method knows no directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec
from learn_to_steer.objectives import _columns, _verdicts
from learn_to_steer.objectives._protocol import Clock, Pair, Verdict
from learn_to_steer.objectives._schedules import published

LOOSE = 1.5  # conflict at most 0.3 and response at most 0.2 are both a probability of at least 0.8
NEGLECTED = 0.5  # while an object is neglected this much, conflict is no concern of the search
EMA = 0.9
SMALL = 0.1  # weight of the clean and align terms in sampling


class InitNO:
    """Losses of a picture: response in every pass, all terms in refinement and search.

    The probability is the smaller of 1 - response and 1 - conflict / 1.5; 0.8 is where both published targets are met.
    ``words_only`` leaves end and padding out of the softmax over columns, as is done for SD2.x.
    """

    schedule: Mapping[str, Any] = published("initno", refinement=((0.2, 20, 0.8), (0.4, 20, 0.8)), search=(5, 10, 50))
    spec = MapSpec(columns="every", choose=_columns.coarse, self_attention=True)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        _columns.need_unet(layout, "InitNO")

    def predicates(self) -> tuple[str, ...]:
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        shown = _columns.object_maps(maps, words_only=self.words_only)
        own = torch.stack(maps.self_attention).mean(dim=0)  # (batch, places, height, width)
        averages = [_average(old, new.detach()) for old, new in zip(maps.memory, shown, strict=True)]
        terms = []
        for b, sample in enumerate(pairs):
            objects = sorted({number for pair in sample for number in (pair.subject, pair.reference)})
            found = shown[b, objects]
            neglect = response(found)
            shared = conflict(_columns.smoothed(own[b, found.flatten(1).argmax(dim=1)]))
            dirt = torch.stack([clean(one) for one in found]).sum()
            drift = shown.new_zeros(())
            if maps.memory[b] is not None:
                drift = (found - maps.memory[b][objects]).abs().mean((-2, -1)).sum()
            terms.append((neglect, shared, dirt, drift))

        def spread(values: Sequence[Tensor]) -> Tensor:
            return _verdicts.whole(pairs, lambda b: (values[b], values[b])).loss

        verdict = _verdicts.whole(
            pairs, lambda b: (terms[b][0], torch.minimum(1 - terms[b][0], 1 - terms[b][1] / LOOSE))
        )
        return Verdict(
            verdict.loss,
            verdict.probability,
            refinement=spread([n + s + SMALL * (d + a) for n, s, d, a in terms]),
            search=spread([n + d + (s if n <= NEGLECTED else 0 * s) for n, s, d, _ in terms]),
            memory=tuple(averages),
        )


def _average(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else EMA * old + (1 - EMA) * new


def response(maps: Tensor) -> Tensor:
    """How much the most neglected object lacks: 1 - its peak; ``maps`` (objects, height, width)."""
    return (1 - maps.amax((-2, -1))).max()


def conflict(own: Tensor) -> Tensor:
    """Mean over pairs of how much the self-attention (objects, height, width) of their peaks is shared: 0 to 1/2."""
    pairs = [
        torch.minimum(own[i], own[j]).sum() / ((own[i] + own[j]).sum() + 1e-6)
        for i, j in combinations(range(len(own)), 2)
    ]
    return torch.stack(pairs).mean() if pairs else own.sum() * 0.0


def clean(shown: Tensor) -> Tensor:
    """The strongest attention outside an object's own patch, zero when all of the patch is stronger.

    The patch is what Otsu's threshold keeps of a map (height, width), as far as it touches the map's peak.
    """
    with torch.no_grad():
        patch = _touching(shown > otsu(shown), int(shown.argmax()))
    outside = shown.masked_fill(patch, float("-inf")).max()
    inside = shown.masked_fill(~patch, float("inf")).min()
    return outside.where(outside > inside, outside.new_zeros(()))


def otsu(shown: Tensor) -> Tensor:
    """The level of 256 between 0 and 1 that parts values into two classes of least variance (Otsu 1979)."""
    levels = torch.arange(256, device=shown.device, dtype=torch.float64)
    places = (255 * shown).long().clamp(0, 255).flatten()
    share = torch.bincount(places, minlength=256).double() / places.numel()
    below = share.cumsum(0)
    mass = (share * levels).cumsum(0)
    between = (mass[-1] * below - mass) ** 2 / (below * (1 - below)).clamp_min(1e-12)
    return ((between.argmax() + 1) / 255 - 1e-7).to(shown.dtype)


def _touching(mask: Tensor, peak: int) -> Tensor:
    """The part of a mask that is connected, over edges, with the place numbered ``peak``, which belongs to it."""
    grown = torch.zeros_like(mask)
    grown.view(-1)[peak] = True
    allowed = mask | grown
    cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]], device=mask.device)[None, None]
    while True:
        wider = (functional.conv2d(grown[None, None].float(), cross, padding=1)[0, 0] > 0) & allowed
        if torch.equal(wider, grown):
            return grown
        grown = wider


def build(layout: Layout) -> InitNO:
    """InitNO for the maps of ``layout``; UnsupportedError unless they are a UNet's."""
    _columns.need_unet(layout, "InitNO")
    return InitNO(_columns.ends_apart(layout))
