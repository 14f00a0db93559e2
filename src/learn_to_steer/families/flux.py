"""FLUX.1: a transformer with joint attention of text and image, rectified flow, and packed latents.

The maps of every block are captured: double-stream blocks first, then single-stream blocks, and within a block by head.
FLUX.1 has 57 blocks of 24 heads, which gives 1368 channels. Among the attention keys the text comes before the image.

Source: the channel order is that of the paper's authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.base import Call
from learn_to_steer.families.defaults import FEW_STEP_LEVELS, FIRST_STEP, Packed, RectifiedFlow, require_latents_alone
from learn_to_steer.families.variant import Variant

VARIANTS = (
    Variant(
        name="flux:schnell",
        family="flux",
        source="black-forest-labs/FLUX.1-schnell",
        resolution=256,
        steps=4,
        guidance=0.0,
        step_size=5.0,
        trained_steps=(1, 3),
        levels=FEW_STEP_LEVELS,
        dtype="bfloat16",
        steering=FIRST_STEP,
    ),
    Variant(
        name="flux:dev",
        family="flux",
        source="black-forest-labs/FLUX.1-dev",
        resolution=512,
        steps=50,
        guidance=3.5,
        step_size=5.0,
        trained_steps=(5, 10, 15, 20, 25, 49),
        dtype="bfloat16",
        architecture={"guidance_embeds": True},
    ),
)


class Flux(RectifiedFlow, Packed):
    """The facts of FLUX.1 pipelines.

    Latents are packed: 2 x 2 positions of the VAE's latents become one position with four times the channels, and the
    denoiser is fed a sequence of shape (batch, positions, 4 * VAE channels).
    """

    name = "flux"
    network = "FluxTransformer2DModel"
    blocks: Mapping[str, str] = {"transformer_blocks": "attn", "single_transformer_blocks": "attn"}
    parameters: tuple[str, ...] = (
        "hidden_states",
        "encoder_hidden_states",
        "pooled_projections",
        "timestep",
        "img_ids",
        "txt_ids",
        "guidance",
        "joint_attention_kwargs",
    )
    shared: tuple[str, ...] = ("img_ids", "txt_ids")
    longest_text = 512
    pipelines: tuple[str, ...] = (
        "FluxPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxControlNetPipeline",
    )
    modular_pipelines: tuple[str, ...] = ("FluxModularPipeline",)

    def check(self, pipe: Any) -> None:
        require_latents_alone(
            pipe.transformer, "FLUX Fill or Control", "FluxPipeline or, to inpaint, FluxInpaintPipeline"
        )

    def default_variant(self, pipe: Any, model: str) -> Variant:
        usual = Variant(
            name=model,
            family=self.name,
            source=model,
            resolution=int(pipe.default_sample_size * pipe.vae_scale_factor),
            steps=50,
            guidance=3.5,
            step_size=5.0,
        )
        if pipe.transformer.config.guidance_embeds:
            return usual
        # A transformer without guidance as an input is a few-step model, like schnell.
        return replace(usual, steps=4, guidance=0.0, levels=FEW_STEP_LEVELS, steering=FIRST_STEP)

    def tokenizer(self, pipe: Any) -> Any:
        return pipe.tokenizer_2

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        second = arguments.get("prompt_2")
        if not second:  # the pipeline takes "" for None, too
            return list(prompts)
        return [second] if isinstance(second, str) else list(second)

    def check_call(self, denoiser: nn.Module, call: Call) -> None:
        latents, positions = call.latents, call.shared["img_ids"].reshape(-1, 3)  # image number, row, column
        # Not read from the config: there None stands for in_channels, which a Control LoRA enlarges.
        if latents.shape[-1] != denoiser.out_channels:
            raise UnsupportedError(
                f"the transformer is fed {latents.shape[-1]} channels but predicts fewer (Fill, Control): such latents "
                "cannot be steered; use a text-to-image pipeline"
            )
        height, width = self.latent_size(denoiser, call)
        if height * width != latents.shape[1] or bool((positions[:, 0] != positions[0, 0]).any()):
            raise UnsupportedError(
                f"the transformer is fed {latents.shape[1]} positions for an image of {height} x {width} (Kontext "
                "appends a second image): such latents cannot be steered; use a text-to-image pipeline"
            )

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        ids = call.shared["img_ids"].reshape(-1, 3)  # older versions of diffusers give them a batch axis
        return int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {}  # FLUX makes no second, unconditional batch: guidance is an input of the transformer


FAMILY = Flux()
