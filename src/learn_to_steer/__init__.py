"""Learn-to-Steer: steer text-to-image models so that objects are where the prompt says, without fine-tuning.

::

    from learn_to_steer import Steerer, load_pipeline

    pipe = load_pipeline("flux:emoji")  # or your own diffusers pipeline
    steered = Steerer.from_pretrained("flux:emoji").on(pipe)  # or the folder or hub id of a classifier
    out = steered("a dog to the right of a teddy bear")
    out.images[0].save("dog.png")

A relation classifier learns from attention maps of labelled images. While an image is generated, the classifier reads
the model's attention maps, and the gradient of its loss updates the latents::

    labelled images ─ inversion ─▶ noisy latents ─▶ attention maps ─ training ─▶ classifier
                                                                                  ▼
    prompt ─ prompts ─▶ relations ─▶ [ denoising ⟲ steering: attention maps ─▶ loss ─▶ gradient ─▶ latents ] ─▶ image

``inversion``, ``prompts``, ``attention``, ``training`` and ``steering`` are packages and modules of this package;
``steering`` is the one to read first.

Source: Yiflach, Atzmon, Chechik, "Data-Driven Loss Functions for Inference-Time Optimization in Text-to-Image
Generation", WACV 2026, arXiv 2509.02295.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learn_to_steer.errors import SteerError
    from learn_to_steer.loading import load_pipeline
    from learn_to_steer.prompts import Relation, parse
    from learn_to_steer.steering import SteeredPipeline, Steerer, SteeringConfig, profile

__version__ = "0.1.0"
__all__ = [
    "Relation",
    "SteerError",
    "SteeredPipeline",
    "Steerer",
    "SteeringConfig",
    "__version__",
    "load_pipeline",
    "parse",
    "profile",
]
_LAZY = {
    "Relation": "learn_to_steer.prompts",
    "SteerError": "learn_to_steer.errors",
    "SteeredPipeline": "learn_to_steer.steering",
    "Steerer": "learn_to_steer.steering",
    "SteeringConfig": "learn_to_steer.steering",
    "load_pipeline": "learn_to_steer.loading",
    "parse": "learn_to_steer.prompts",
    "profile": "learn_to_steer.steering",
}


def __getattr__(name: str) -> Any:
    # Imported when first used. Some import torch, which takes seconds, and --help and parsing do not need it. And
    # before Ctrl-C is handled, the command line imports this package.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
