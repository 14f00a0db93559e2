"""InitNO: optimise the initial noise until every object has its own place, then update the latents as usual.

Source: Guo et al., CVPR 2024, arXiv 2404.04650 (response, conflict, clean and align terms); xiefan-guo/initno,
``initno/pipelines/pipeline_sd_initno.py``.

Published defaults: mu and v of the noise z exp(v/2) + mu are optimised in up to 5 rounds of 10 Adam iterations, with
50 more on the best round if none succeeds. Then there is one update on the response term before each step of the first
half. At 20 and 40 per cent there are up to 20 refinement iterations on all terms, until response is at most 0.2 and
conflict at most 0.3.

Differs: rounds are ranked by the probability below (published: by the sum of two terms), and the first round that
succeeds is used (the published code may discard it). The inner loop that pulls the noise to its prior ends after 50
iterations (the published one may never end on SD2.x). The loss does not depend on the predicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import LossOutput, ObjectPair, Scalar, StepInfo, pack_images
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

CONFLICT_SCALE = 1.5  # so that conflict 0.3, like response 0.2, is a probability of 0.8
NEGLECTED = 0.5  # response above which the loss of the search leaves out the conflict term
EMA_DECAY = 0.9  # of the running mean of maps that the align term compares with
SMALL_WEIGHT = 0.1  # of the clean and align terms in refinement


class InitNO:
    """Losses of an image: response in regular updates, all terms in refinement and search.

    The probability is the smaller of 1 - response and 1 - conflict / 1.5; both published targets are met at 0.8.

    Args:
        words_only: Exclude end and padding from the softmax over tokens, as is done for SD2.x.
    """

    schedule: Mapping[str, Any] = published_schedule(
        "initno", refinement=((0.2, 20, 0.8), (0.4, 20, 0.8)), search=(5, 10, 50)
    )
    spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16, self_attention=True)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "InitNO")

    def predicates(self) -> tuple[str, ...]:
        """All predicates; the loss does not depend on them."""
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        current = attention.object_maps(maps, words_only=self.words_only)
        self_attention = torch.stack(maps.self_attention).mean(dim=0)  # (batch, queries, height, width)
        averages = [_average(old, new.detach()) for old, new in zip(maps.memory, current, strict=True)]
        terms = []
        for sample, row in enumerate(object_pairs):
            objects = sorted({number for pair in row for number in (pair.subject, pair.reference)})
            of_objects = current[sample, objects]
            peaks = of_objects.flatten(1).argmax(dim=1)
            align = current.new_zeros(())
            if maps.memory[sample] is not None:
                align = (of_objects - maps.memory[sample][objects]).abs().mean((-2, -1)).sum()
            terms.append(
                (
                    response(of_objects),
                    conflict(attention.blur(self_attention[sample, peaks])),
                    torch.stack([clean(one) for one in of_objects]).sum(),
                    align,
                )
            )

        def packed_loss(values: Sequence[Tensor]) -> Tensor:
            return pack_images(object_pairs, lambda sample: (values[sample], values[sample])).loss

        probabilities = [torch.minimum(1 - r, 1 - c / CONFLICT_SCALE) for r, c, _, _ in terms]
        packed = pack_images(object_pairs, lambda sample: (terms[sample][0], probabilities[sample]))
        return LossOutput(
            packed.loss,
            packed.probability,
            refinement=packed_loss([r + c + SMALL_WEIGHT * (k + a) for r, c, k, a in terms]),
            search=packed_loss([r + k + (c if r <= NEGLECTED else 0 * c) for r, c, k, _ in terms]),
            memory=tuple(averages),
        )


def _average(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else EMA_DECAY * old + (1 - EMA_DECAY) * new


def response(maps: Float[Tensor, "objects height width"]) -> Scalar:
    """Return 1 minus the lowest peak of the objects' maps."""
    return (1 - maps.amax((-2, -1))).max()


def conflict(self_attention: Float[Tensor, "objects height width"]) -> Scalar:
    """Return the mean overlap of the self-attention of two objects, over all pairs; in [0, 1/2].

    Args:
        self_attention: For every object, the self-attention of the place where its map has its peak.

    Returns:
        The overlap; zero for a single object.
    """
    overlaps = [
        torch.minimum(self_attention[i], self_attention[j]).sum()
        / ((self_attention[i] + self_attention[j]).sum() + 1e-6)
        for i, j in combinations(range(len(self_attention)), 2)
    ]
    return torch.stack(overlaps).mean() if overlaps else self_attention.sum() * 0.0


def clean(values: Float[Tensor, "height width"]) -> Scalar:
    """Return the strongest attention outside an object's own patch; zero if all of the patch is stronger.

    The patch is the part of the map above Otsu's threshold that is connected with the peak.
    """
    with torch.no_grad():
        patch = _connected(values > otsu(values), int(values.argmax()))
    outside = values.masked_fill(patch, float("-inf")).max()
    inside = values.masked_fill(~patch, float("inf")).min()
    return outside.where(outside > inside, outside.new_zeros(()))


def otsu(values: Float[Tensor, "height width"]) -> Scalar:
    """Return Otsu's threshold (1979): of 256 levels in [0, 1], the one that splits the values into the two classes of
    least variance.
    """
    levels = torch.arange(256, dtype=torch.float64)  # on the CPU: Apple's GPUs have no float64
    places = (255 * values).long().clamp(0, 255).flatten().cpu()
    share = torch.bincount(places, minlength=256).double() / places.numel()
    below = share.cumsum(0)
    mass = (share * levels).cumsum(0)
    between = (mass[-1] * below - mass) ** 2 / (below * (1 - below)).clamp_min(1e-12)
    return ((between.argmax() + 1) / 255 - 1e-7).to(values)


def _connected(mask: Bool[Tensor, "height width"], peak: int) -> Bool[Tensor, "height width"]:
    """The part of a mask that is connected over edges with the cell of flat index ``peak``, which is included."""
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
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "InitNO")
    return InitNO(attention.is_sd2_layout(layout))
