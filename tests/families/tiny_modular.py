"""Modular pipelines of tiny random components, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from learn_to_steer.families.testing import tiny
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer, profile

PROMPT = "a dog to the left of a cat"
NO_RELATION = "a dog and a cat"


def modular(name: str, blocks: Any = None) -> Any:
    """The modular pipeline with the components of ``tiny(name)``."""
    blocks = blocks if blocks is not None else getattr(diffusers, BLOCKS[name])()
    pipe = blocks.init_pipeline()
    own = tiny(name).components
    pipe.update_components(**{part: own[part] for part in pipe.components if own.get(part) is not None})
    return pipe


def steerer(name: str, random_classifier: Callable[..., Any], **settings: Any) -> Steerer:
    """A steerer of a random classifier, with moves so large that they show and a goal never reached."""
    config = profile("default").changed(**({"passes": 1, "threshold": 2.0, "step_size": 1.0} | settings))
    return Steerer(Learned(random_classifier(tiny(name)).requires_grad_(False)), config)


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    settings = {"num_inference_steps": 3, "height": 64, "width": 64, "output_type": "pt"} | more
    return pipe(prompt=prompt, generator=torch.Generator().manual_seed(0), **settings)


BLOCKS = {
    "sdxl": "StableDiffusionXLAutoBlocks",
    "sd3": "StableDiffusion3AutoBlocks",
    "flux": "FluxAutoBlocks",
    "flux2": "Flux2AutoBlocks",
    "flux2:klein": "Flux2KleinAutoBlocks",
    "qwen-image": "QwenImageAutoBlocks",
    "z-image": "ZImageAutoBlocks",
}
