"""The arguments that a model is usually sampled with: size, steps and guidance.

``load_pipeline`` keeps them in two attributes of the pipeline, so that they are still there after ``pipe.to(...)``. A
pipeline that is made from another one (``from_pipe``) does not have them.
"""

from __future__ import annotations

from typing import Any

from learn_to_steer.families import Variant


def remember(pipe: Any, variant: Variant) -> None:
    """Set the attributes ``steering_variant`` and ``steering_defaults`` of a pipeline.

    Args:
        pipe: A diffusers pipeline.
        variant: The facts of the model that it was loaded from.
    """
    pipe.steering_variant = variant
    pipe.steering_defaults = sampling_arguments(variant)


def loaded_variant(pipe: Any) -> Variant | None:
    """Return the facts of the model that ``load_pipeline`` made ``pipe`` of; None for any other pipeline."""
    variant = getattr(pipe, "steering_variant", None)
    return variant if isinstance(variant, Variant) else None


def sampling_arguments(variant: Variant) -> dict[str, Any]:
    """Return the arguments of a pipeline call that samples a model as usual: steps, guidance, size and the like."""
    return {
        "num_inference_steps": variant.steps,
        variant.guidance_argument: variant.guidance,
        "height": variant.resolution,
        "width": variant.resolution,
        **variant.arguments,
    }
