"""CONFORM: a contrastive loss by which maps of one object attract each other and maps of different objects repel.

Source: Meral et al., CVPR 2024, arXiv 2312.06059 (NT-Xent on flattened maps); gemlab-vt/CONFORM,
``pipeline_conform.py`` with the settings of the repository's notebook.

Published defaults: no second softmax over the tokens, temperature 0.5, updates in the first 60 per cent of the steps.
At 0, 20 and 40 per cent there are 20 refinement iterations, which have no target.

Differs: an object is a class without adjectives, since relations have none. Its only positives are its own maps of the
previous denoising step. In the first step there are none, so the loss is zero and nothing moves. The loss does not
depend on the predicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import published_schedule
from learn_to_steer.losses.base import NEVER, LossAndProbability, LossOutput, ObjectPair, Scalar, StepInfo, pack_images
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec

TEMPERATURE = 0.5
Memory = tuple[int, Tensor, Tensor | None]  # a step, the latest maps of that step, the maps of the step before


class Conform:
    """One loss for all objects of an image.

    The probability is exp(-loss), the geometric mean of the positives' shares in NT-Xent.
    """

    schedule: Mapping[str, Any] = published_schedule(
        "conform", window=0.6, refinement=((0.0, 20, NEVER), (0.2, 20, NEVER), (0.4, 20, NEVER))
    )
    spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16)

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "CONFORM")

    def predicates(self) -> tuple[str, ...]:
        """All predicates; the loss does not depend on them."""
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        current = attention.object_maps(maps, factor=None)
        memory = tuple(_remember(old, info.step, new.detach()) for old, new in zip(maps.memory, current, strict=True))

        def loss_of(sample: int) -> LossAndProbability:
            objects = sorted({number for pair in object_pairs[sample] for number in (pair.subject, pair.reference)})
            embedded, classes = current[sample, objects], torch.arange(len(objects))
            before = memory[sample][2]
            if before is not None:
                embedded, classes = torch.cat([embedded, before[objects]]), classes.repeat(2)
            loss = nt_xent(embedded.flatten(1), classes)
            return loss, (-loss).exp()

        packed = pack_images(object_pairs, loss_of)
        return LossOutput(packed.loss, packed.probability, memory=memory)


def _remember(old: Memory | None, step: int, maps: Tensor) -> Memory:
    if old is None:
        return step, maps, None
    return step, maps, old[2] if old[0] == step else old[1]


def nt_xent(
    embedded: Float[Tensor, "items features"], classes: Int[Tensor, " items"], temperature: float = TEMPERATURE
) -> Scalar:
    """Return the contrastive loss: the mean over ordered pairs (a, p) of one class of
    -log(e^s(a,p) / (e^s(a,p) + sum over items n of other classes of e^s(a,n))).

    s is the cosine similarity divided by the temperature. Other members of the class are not in the denominator.

    Args:
        embedded: One vector per item.
        classes: The class of every item.
        temperature: Divides the similarities.

    Returns:
        The loss; zero when no class has two members.
    """
    unit = functional.normalize(embedded, dim=1)
    similarity = unit @ unit.T / temperature
    same = (classes[:, None] == classes[None]).to(embedded.device)
    negatives = similarity.masked_fill(same, float("-inf")).logsumexp(dim=1, keepdim=True).expand_as(similarity)
    losses = torch.logaddexp(similarity, negatives) - similarity
    positive = same & ~torch.eye(len(classes), dtype=torch.bool, device=same.device)
    if not positive.any():
        return similarity.sum() * 0.0
    return losses[positive].mean()


def build(layout: Layout) -> Conform:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "CONFORM")
    return Conform()
