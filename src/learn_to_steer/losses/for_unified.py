"""FOR: the spatial term plus terms against missing and mixed objects (stage 1), and the repair of an image (stage 2).

Source: FOR, arXiv 2503.06506, unified loss and noise refinement; hadi-hosseini/noise-refinement.

Published defaults: all weights one, the schedule of ``for_spatial``. The second softmax has the factor 100 for the
spatial term and the factor 1 for the others. Stage 2 starts with one update for every object that a verifier did not
find, with a contrast of 100 instead of 1,000, and continues as stage 1.

Differs: no attribute term, since relations have no adjectives. An object of several tokens is the mean of their maps.
In stage 2 the term against missing objects is the mean over all good objects, also if there is only one. A relation
that fails does not make its objects faulty, but the relations of a faulty object are repaired with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import NEVER, LossAndProbability, LossOutput, ObjectPair, Scalar, StepInfo, pack_images
from learn_to_steer.losses.for_spatial import object_centres
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

CONTRAST = 1000.0
STAGE2_CONTRAST = 100.0


class ForUnified:
    """Loss of an image: spatial + missing; or mixing + missing if no relation has a spatial term (diagonals).

    The probability is exp(-loss).
    """

    schedule: Mapping[str, Any] = published_schedule("for-unified")
    spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16)

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "FOR's unified loss")

    def predicates(self) -> tuple[str, ...]:
        """All predicates; diagonals have no spatial term."""
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        centres = object_centres(maps, unet=True)
        plain = attention.object_maps(maps, factor=1.0, smooth=False)

        def loss_of(sample: int) -> LossAndProbability:
            objects = sorted({number for pair in object_pairs[sample] for number in (pair.subject, pair.reference)})
            spatial = [_spatial(pair, centres[sample]) for pair in object_pairs[sample] if pair.predicate in BASIC]
            of_objects = plain[sample, objects]
            loss = missing(of_objects) + (torch.stack(spatial).sum() if spatial else mixing(of_objects))
            return loss, (-loss).exp()

        return pack_images(object_pairs, loss_of)


class ForStage2(ForUnified):
    """The unified loss for drawing an image again in which a verifier did not find all objects; one image at a time.

    Its refinement iterations repair the faulty objects in turn, one iteration each. A repaired object counts as good
    when the next one is repaired.

    Args:
        faulty: Indices of the objects to repair, in order.
    """

    def __init__(self, faulty: Sequence[int]) -> None:
        self.faulty = tuple(faulty)
        self.schedule: Mapping[str, Any] = {
            **ForUnified.schedule,
            "profile": "for-refinement",
            "refinement": ((0.0, len(self.faulty), NEVER),),
        }

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        packed = super().__call__(maps, object_pairs, info)
        if len(object_pairs) != 1:
            raise ValueError(f"stage 2 repairs one image at a time, not {len(object_pairs)}")
        turn = maps.memory[0] or 0
        if turn >= len(self.faulty):
            return packed
        loss = self._repair(maps, object_pairs[0], turn)
        repair = pack_images(object_pairs, lambda _: (loss, loss))
        return replace(packed, refinement=repair.loss, memory=(turn + 1,))

    def _repair(self, maps: AttentionMaps, object_pairs: Sequence[ObjectPair], turn: int) -> Scalar:
        """The loss that repairs the faulty object of index ``turn``: it should differ from all good objects."""
        wanted = self.faulty[turn]
        every = {number for pair in object_pairs for number in (pair.subject, pair.reference)}
        good = sorted(every - set(self.faulty[turn:]))
        objects = attention.object_maps(maps, factor=1.0, smooth=False)[0]
        share = attention.normalise(objects)
        loss = objects.new_zeros(())
        if good:
            apart = torch.stack([(STAGE2_CONTRAST * (share[wanted] - share[n])).amax().clamp_min(0) for n in good])
            mixed = torch.stack([overlap(objects[wanted], objects[n]) for n in good])
            loss = (1 - apart.mean()).clamp_min(0) + mixed.sum()
        else:
            loss = 1 - objects[wanted].amax()
        centres = object_centres(maps, unet=True)[0]
        for pair in object_pairs:
            if wanted in (pair.subject, pair.reference) and pair.predicate in BASIC:
                loss = loss + _spatial(pair, centres)
        return loss


def _spatial(pair: ObjectPair, centres: Float[Tensor, "objects 2"]) -> Scalar:
    """FOR's spatial term of a relation."""
    return torch.sigmoid(-attention.signed_separation(pair.predicate, centres[pair.subject], centres[pair.reference]))


def missing(maps: Float[Tensor, "objects height width"]) -> Scalar:
    """Return FOR's term against missing objects: high for an object whose map nowhere exceeds the others' maps."""
    share = attention.normalise(maps)
    apart = (CONTRAST * (share[:, None] - share[None])).amax((-2, -1)).clamp_min(0)  # zero with itself
    return (1 - apart.sum(dim=1) / max(len(maps) - 1, 1)).clamp_min(0).sum()


def mixing(maps: Float[Tensor, "objects height width"]) -> Scalar:
    """Return the sum of soft overlaps over all pairs of objects."""
    overlaps = [overlap(maps[i], maps[j]) for i, j in combinations(range(len(maps)), 2)]
    return torch.stack(overlaps).sum() if overlaps else maps.sum() * 0.0


def overlap(first: Float[Tensor, "height width"], second: Float[Tensor, "height width"]) -> Scalar:
    """Return FOR's soft overlap: sum(A B) / sum(A + B) of maps scaled to [0, 1]; one half for equal binary maps."""
    a, b = _scaled(first), _scaled(second)
    return (a * b).sum() / (a + b).sum()


def _scaled(values: Tensor) -> Tensor:
    low, high = values.amin(), values.amax()
    return (values - low) / (high - low).clamp_min(1e-12)


def build(layout: Layout) -> ForUnified:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "FOR's unified loss")
    return ForUnified()
