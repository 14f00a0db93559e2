"""FOR's second stage: what went wrong in a finished picture is mended at the start of the next one.

*Source:* FOR, arXiv 2503.06506, noise refinement: before the first step one update for every object that a verifier
missed, then the unified loss as in the first stage. Maps, factor (100 in place of 1,000) and terms as published.
*Differs:* no attribute term; the term against missing is the mean over all good objects, also where there is but one. A
wrong relation alone makes no object faulty, but a faulty one's relations are mended with it. Used by
``evaluation.noise_refinement``, for one picture at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from learn_to_steer.maps import AttentionMaps
from learn_to_steer.objectives import _columns, _places, _verdicts
from learn_to_steer.objectives._protocol import NEVER, Clock, Pair, Verdict
from learn_to_steer.objectives.for_spatial import object_centres
from learn_to_steer.objectives.for_unified import ForUnified, overlap

CONTRAST = 100.0


class ForRepair(ForUnified):
    """The unified loss; its refinement passes mend ``faulty`` objects (numbers), one each, in turn.

    The mended object joins the good ones, from which the next is set apart.
    """

    def __init__(self, faulty: Sequence[int]) -> None:
        self.faulty = tuple(faulty)
        self.schedule: Mapping[str, Any] = {
            **ForUnified.schedule,
            "profile": "for-refinement",
            "refinement": ((0.0, len(self.faulty), NEVER),),
        }

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[Pair]], clock: Clock) -> Verdict:
        verdict = super().__call__(maps, pairs, clock)
        if len(pairs) != 1:
            raise ValueError(f"one picture is mended at a time, not {len(pairs)}")
        turn = maps.memory[0] or 0
        if turn >= len(self.faulty):
            return verdict
        loss = self._repair(maps, pairs[0], turn)
        repair = _verdicts.whole(pairs, lambda _: (loss, loss))
        return replace(verdict, refinement=repair.loss, memory=(turn + 1,))

    def _repair(self, maps: AttentionMaps, pairs: Sequence[Pair], turn: int) -> Tensor:
        wanted = self.faulty[turn]
        every = {number for pair in pairs for number in (pair.subject, pair.reference)}
        good = sorted(every - set(self.faulty[turn:]))
        shown = _columns.object_maps(maps, sharpness=1.0, smooth=False)[0]
        share = shown / shown.sum((-2, -1), keepdim=True)
        loss = shown.new_zeros(())
        if good:
            apart = torch.stack([(CONTRAST * (share[wanted] - share[n])).amax().clamp_min(0) for n in good])
            loss = (1 - apart.mean()).clamp_min(0) + torch.stack([overlap(shown[wanted], shown[n]) for n in good]).sum()
        else:
            loss = 1 - shown[wanted].amax()
        centres = object_centres(maps, unet=True)[0]
        for pair in pairs:
            if wanted in (pair.subject, pair.reference) and pair.predicate in _places.SIDES:
                apart = _places.separation(pair.predicate, centres[pair.subject], centres[pair.reference])
                loss = loss + torch.sigmoid(-apart)
        return loss
