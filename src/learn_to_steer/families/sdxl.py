"""Stable Diffusion XL: Stable Diffusion's UNet with two text encoders side by side, and sizes as further inputs.

Both encoders read the same tokens, and their states stand in the same text columns. Base, Turbo, Lightning and LCM
models have the same UNet; how many steps they take is not written in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.defaults import FEW_STEP_LEVELS, FIRST_STEP, require_same_prompt
from learn_to_steer.families.sd import StableDiffusion
from learn_to_steer.families.variant import Variant

_ARCHITECTURE = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VARIANTS = (
    Variant(
        name="sdxl:base",
        family="sdxl",
        source="stabilityai/stable-diffusion-xl-base-1.0",
        resolution=1024,
        steps=50,
        guidance=5.0,
        step_size=5.0,
        dtype="float16",
        architecture=_ARCHITECTURE,
    ),
    Variant(
        name="sdxl:turbo",
        family="sdxl",
        source="stabilityai/sdxl-turbo",
        resolution=512,
        steps=1,
        guidance=0.0,
        step_size=5.0,
        levels=FEW_STEP_LEVELS,
        dtype="float16",
        steering=FIRST_STEP,
        architecture=_ARCHITECTURE | {"sample_size": 64},
    ),
)


class StableDiffusionXL(StableDiffusion):
    """The facts of SDXL pipelines."""

    name = "sdxl"
    dtype = "float16"
    inpainting = "StableDiffusionXLInpaintPipeline"
    schedulers = (
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "DEISMultistepScheduler",
        "LCMScheduler",
    )
    pipelines = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetPipeline",
    )
    modular_pipelines = ("StableDiffusionXLModularPipeline",)

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        # Kolors reads another text encoder through a projection; its columns are other words.
        return config.get("addition_embed_type") == "text_time" and config.get("encoder_hid_dim_type") in (
            None,
            "ip_image_proj",
        )

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        missing = [name for name in ("text_encoder", "text_encoder_2") if getattr(pipe, name, None) is None]
        if missing:
            raise UnsupportedError(
                f"this SDXL pipeline has no {' and no '.join(missing)}: the refiner, or a pipeline that was loaded "
                "without it; load the base model with both encoders (prompt_embeds can still be given, and "
                "pipe.enable_model_cpu_offload() saves memory)"
            )

    def default_variant(self, pipe: Any, model: str) -> Variant:
        usual = replace(super().default_variant(pipe, model), guidance=5.0, step_size=5.0)
        if pipe.unet.config.time_cond_proj_dim is None:
            return usual
        # Guidance is an input of this UNet, as in distilled latent consistency models.
        return replace(usual, steps=4, guidance=8.0, levels=FEW_STEP_LEVELS, steering=FIRST_STEP)

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        why = "both encoders' words stand in the same text columns"
        require_same_prompt("prompt_2", prompts, arguments, why)
        return list(prompts)


FAMILY = StableDiffusionXL()
