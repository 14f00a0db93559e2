"""When a picture is good enough: all that its prompt asks for has to hold together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from learn_to_steer.losses.base import LossOutput

ONE, TWO = "a dog above a cat", "a dog above a cat to the left of a horse"


class Sure:
    """A loss that finds every relation 0.9 probable: two together are 0.81."""

    def __init__(self, sound: Any) -> None:
        self.sound, self.spec = sound, sound.spec

    def predicates(self) -> tuple[str, ...]:
        return tuple(self.sound.predicates())

    def __call__(self, *args: Any) -> LossOutput:
        output = self.sound(*args)
        return replace(output, probability=torch.full_like(output.probability, 0.9))


@pytest.mark.parametrize(
    ("stop", "threshold", "stops"),
    [
        ("all", 0.8, [True, True]),
        ("all", 0.85, [True, False]),
        ("all", 0.95, [False, False]),
        ("worst", 0.85, [True, True]),  # as published stops have it
        ("worst", 0.95, [False, False]),
    ],
)
def test_relations_have_to_hold_together(tiny_steerer: Any, stop: str, threshold: float, stops: list[bool]) -> None:
    steered = tiny_steerer(threshold=threshold, stop=stop)
    steered.loss = Sure(steered.loss)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    settings = {"num_inference_steps": 4, "output_type": "latent", "height": 64, "width": 64}
    images = steered([ONE, TWO], generator=generators, **settings).steering.images
    assert [len(image.probability) for image in images] == [1, 2]
    assert [image.converged for image in images] == stops
    assert [image.passes for image in images] == [0 if stop else 4 for stop in stops]  # two in two of four steps
