"""How a model is sampled: size, steps and guidance, which a loaded pipeline remembers.

The memory is two attributes of the pipeline object, so that it survives ``pipe.to(...)``. A pipeline that is made from
another one (``from_pipe``) starts without.
"""

from __future__ import annotations

from typing import Any

from learn_to_steer.families import Variant


def remember(pipe: Any, variant: Variant) -> None:
    """Note on ``pipe`` what it was loaded as: ``pipe.steering_variant`` and ``pipe.steering_defaults``."""
    pipe.steering_variant = variant
    pipe.steering_defaults = sampling_arguments(variant)


def loaded_variant(pipe: Any) -> Variant | None:
    """Return the variant that ``load_pipeline`` loaded ``pipe`` as, or None for a pipeline from elsewhere."""
    variant = getattr(pipe, "steering_variant", None)
    return variant if isinstance(variant, Variant) else None


def sampling_arguments(variant: Variant) -> dict[str, Any]:
    """Return the arguments of a pipeline call that samples ``variant`` as it is meant to be: steps, guidance, size."""
    return {
        "num_inference_steps": variant.steps,
        "guidance_scale": variant.guidance,
        "height": variant.resolution,
        "width": variant.resolution,
        **variant.arguments,
    }
