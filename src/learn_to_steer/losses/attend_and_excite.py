"""Attend-and-Excite: no object may be neglected, so the object with the lowest attention is strengthened.

Source: Chefer et al., SIGGRAPH 2023, arXiv 2301.13826, section 3 (L = max over objects of 1 - max over places of their
maps); yuval-alaluf/Attend-and-Excite, ``pipeline_attend_and_excite.py``.

Published defaults: one update of size 20 sqrt(linspace(1, 1/2)) before each step of the first half. In the steps at 0,
20 and 40 per cent there are up to 20 refinement iterations, until the lowest peak reaches 0.05, 0.5 and 0.8.

Differs: the objects are the two nouns of each relation; an object of several tokens is the mean of their maps. The loss
does not depend on the predicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from learn_to_steer.geometry import BASIC, DIAGONAL
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import NEVER, LossAndProbability, LossOutput, ObjectPair, StepInfo, pack_relations
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec


def published_schedule(name: str, **changes: Any) -> Mapping[str, Any]:
    """Return the schedule of Attend-and-Excite, which later methods kept.

    Args:
        name: Name of the method, which is recorded with the settings.
        **changes: Settings in which the method differs.

    Returns:
        Steering settings: one update with the raw gradient before each of the first half of the steps.
    """
    settings = {
        "by_step_index": True,
        "window": 0.5,
        "iterations": 1,
        "max_iterations": 10_000,
        "step_size": 20.0,
        "decay": 0.5,
        "normalised": False,
        "threshold": NEVER,
    }
    return MappingProxyType({**settings, "profile": name, **changes})


class AttendAndExcite:
    """Loss of a relation: 1 minus the lower of its objects' peaks.

    The paper takes the maximum over all objects; here that is ``relation_reduction="worst"``. The probability is the
    lower peak itself, for which the paper gives its targets.

    Args:
        words_only: Exclude end and padding from the softmax over tokens, as the authors do for SD2.x.
    """

    schedule: Mapping[str, Any] = published_schedule(
        "attend-and-excite", refinement=((0.0, 20, 0.05), (0.2, 20, 0.5), (0.4, 20, 0.8))
    )
    spec = MapSpec(columns="every", choose=attention.layers_nearest_16x16)

    def __init__(self, words_only: bool = False) -> None:
        self.words_only = words_only

    def check(self, layout: Layout) -> None:
        """See ``Loss.check``."""
        attention.require_unet(layout, "Attend-and-Excite")

    def predicates(self) -> tuple[str, ...]:
        """All predicates; the loss does not depend on them."""
        return BASIC + DIAGONAL

    def __call__(self, maps: AttentionMaps, object_pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        """See ``Loss.__call__``."""
        peaks = attention.object_maps(maps, words_only=self.words_only).amax((-2, -1))

        def loss_of(sample: int, pair: ObjectPair) -> LossAndProbability:
            lower = torch.minimum(peaks[sample, pair.subject], peaks[sample, pair.reference])
            return (1 - lower).clamp_min(0), lower

        return pack_relations(object_pairs, loss_of)


def build(layout: Layout) -> AttendAndExcite:
    """Make the loss for the maps of a UNet; raises UnsupportedError for other layouts."""
    attention.require_unet(layout, "Attend-and-Excite")
    return AttendAndExcite(attention.is_sd2_layout(layout))
