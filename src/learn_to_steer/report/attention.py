"""Where the words of a prompt look while a picture is made: kept latents, shown to the denoiser again.

The tap that steers only sees samples that still need steering, before they are moved. Here a pipeline call
leaves the latents of a few steps behind, and the maps are read afterwards, base and steered alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import Relation

STEPS = 5
SIDE = 16


class Trace:
    """A pipeline's ``callback_on_step_end`` that keeps what the denoiser is fed next, at a few steps.

    ``kept`` maps a step's index to the scheduler's time and the latents (samples, ...), scaled as they are fed.
    """

    def __init__(self, steps: int, keep: int = STEPS) -> None:
        self._wanted = {round(place) + 1 for place in np.linspace(0, max(steps - 2, 0), keep)}
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, pipe: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        times = pipe.scheduler.timesteps
        if step + 1 in self._wanted and step + 1 < len(times):
            latents, time = values["latents"], times[step + 1]
            if hasattr(pipe.scheduler, "scale_model_input"):
                latents = pipe.scheduler.scale_model_input(latents, time)
            self.kept[step + 1] = (time, latents.detach().clone())
        return values


@dataclass(frozen=True)
class ObjectMaps:
    """Maps of some pictures of one prompt: (pictures, steps, objects, side, side), each summing to one."""

    objects: tuple[str, ...]
    steps: tuple[int, ...]
    values: NDArray[np.float32]


def object_maps(
    pipe: Any,
    prompt: str,
    relations: Sequence[Relation],
    traces: Sequence[tuple[Trace, int]],
    sampling: Mapping[str, Any],
) -> ObjectMaps:
    """The objects' maps, mean over all channels, of the pictures ``traces`` (a trace and a row of it each).

    The traces are of calls with equal steps; ``sampling`` are the arguments of those calls. Costs one forward a step.
    """
    family = find(pipe)
    ends = [(r.subject, r.subject_span) for r in relations] + [(r.object, r.object_span) for r in relations]
    objects = {span: name for name, span in ends if span is not None}
    recording = record(pipe, family, [prompt] * len(traces), sampling["height"], sampling["width"], sampling)
    tokens = family.text_length(recording.call)
    columns = family.columns(pipe, prompt, list(objects), sampling)
    capture = AttentionCapture(family.points(recording.denoiser), spec=None)
    weights = columns_to_weights([columns] * len(traces), tokens)
    steps = sorted(traces[0][0].kept)
    seen = []
    for step in steps:
        time = family.fed(traces[0][0].kept[step][0])
        latents = torch.stack([trace.kept[step][1][row] for trace, row in traces])
        with torch.no_grad(), capture.capture(weights, *family.latent_size(recording.call)) as maps:
            recording(latents, time)
            seen.append(maps().stack(SIDE).mean(dim=2).float().cpu())
    values = torch.stack(seen, dim=1).numpy()
    return ObjectMaps(tuple(objects.values()), tuple(steps), values)
