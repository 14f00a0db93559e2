"""Draws with tiny pipelines, steered and not, for the tests of single families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

PROMPT = "a dog to the left of a cat"
DOG, CAT = (2, 5), (23, 26)


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    sized = {} if "image" in more else {"height": 64, "width": 64}
    settings = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "latent", **sized}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **(settings | more))


def is_steered(pipe: Any, steer: Callable[..., Any], **more: Any) -> None:
    mine, stock = draw(steer(pipe), **more), draw(pipe, **more)
    assert mine.steering.images[0].passes > 0 and (mine.images - stock.images).abs().max() > 1e-3
