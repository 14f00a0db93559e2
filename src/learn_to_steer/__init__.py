"""Learn-to-Steer: frozen text-to-image models put things where the prompt says.

::

    image ─ inversion ─▶ noisy latents ─ tap ─▶ attention maps ─ dataset ─▶ shards ─ training ─▶ classifier
                                                                                            │ becomes the loss
    prompt ─▶ relations ─▶ [ any diffusers pipeline ⟲ steering: tap ▶ objective ▶ gradient ▶ latents ] ─▶ image

    steered = Steerer.from_pretrained("classifier folder").on(pipe)
    out = steered("a dog to the right of a teddy bear")

*Source:* Yiflach, Atzmon, Chechik, WACV 2026, arXiv 2509.02295.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from learn_to_steer.errors import SteerError
from learn_to_steer.prompts import Relation, parse

if TYPE_CHECKING:
    from learn_to_steer.steering import SteeredPipeline, Steerer, SteeringConfig, profile

__version__ = "0.1.0"
__all__ = ["Relation", "SteerError", "SteeredPipeline", "Steerer", "SteeringConfig", "__version__", "parse", "profile"]
_LAZY = ("SteeredPipeline", "Steerer", "SteeringConfig", "profile")


def __getattr__(name: str) -> Any:
    # torch is imported when steering is first asked for, so that --help and parsing stay fast.
    if name in _LAZY:
        from learn_to_steer import steering

        return getattr(steering, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
