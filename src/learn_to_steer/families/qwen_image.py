"""Qwen-Image: a transformer with joint attention of text and image, rectified flow, packed latents of a video VAE.

A language model reads the prompt inside a chat template, whose first tokens the pipeline drops again; the last ones are
kept. Short texts of a batch are filled up with zeros, which a mask keeps out of the attention. Guidance is true
guidance, by a second call of the transformer, and only with a negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.base import Call
from learn_to_steer.families.chat import ChatTransformer
from learn_to_steer.families.defaults import Packed, RectifiedFlow
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import TextSpan

_USUAL = Variant(
    name="qwen-image",
    family="qwen-image",
    source="Qwen/Qwen-Image",
    resolution=1328,
    steps=50,
    guidance=4.0,
    guidance_argument="true_cfg_scale",
    step_size=5.0,
    dtype="bfloat16",
    arguments={"negative_prompt": " "},
)
VARIANTS = (
    _USUAL,
    replace(
        _USUAL,
        name="qwen-image:2512",
        source="Qwen/Qwen-Image-2512",
        # What not to draw: low resolution, deformed limbs, waxen faces, garbled text.
        arguments={
            "negative_prompt": "低分辨率，低画质，肢体畸形，手指畸形，画面过饱和，蜡像感，人脸无细节，"  # noqa: RUF001
            "过度光滑，画面具有AI感。构图混乱。文字模糊，扭曲。"  # noqa: RUF001
        },
    ),
)


class QwenImage(RectifiedFlow, ChatTransformer, Packed):
    """The facts of Qwen-Image pipelines."""

    name = "qwen-image"
    network = "QwenImageTransformer2DModel"
    pipelines = (
        "QwenImagePipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImageControlNetPipeline",
    )
    modular_pipelines = ("QwenImageModularPipeline",)
    parameters = (
        "hidden_states",
        "encoder_hidden_states",
        "encoder_hidden_states_mask",
        "timestep",
        "img_shapes",
    )
    shared = ("img_shapes", "txt_seq_lens")
    longest_text = 512

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        return not config.get("use_layer3d_rope")  # Qwen-Image-Layered draws several images at once

    def check(self, pipe: Any) -> None:
        return None  # its config counts the predicted channels before they are packed; ``check_call`` sees other images

    def default_variant(self, pipe: Any, model: str) -> Variant:
        return replace(_USUAL, name=model, source=model)

    def conversation(self, pipe: Any, prompt: str) -> str:
        return str(pipe.prompt_template_encode).format(prompt)

    def dropped(self, pipe: Any) -> int:
        return int(pipe.prompt_template_encode_start_idx)

    def spans(self, denoiser: nn.Module, call: Call) -> Sequence[TextSpan] | None:
        mask: Tensor | None = call.rest.get("encoder_hidden_states_mask")
        if mask is None:
            return None
        columns = [row.nonzero().flatten().tolist() for row in mask.cpu()]
        return [TextSpan(own[0], own[-1] + 1 - own[0], mask.shape[1]) for own in columns]

    def check_call(self, denoiser: nn.Module, call: Call) -> None:
        height, width = self.latent_size(denoiser, call)
        if height * width != call.latents.shape[1]:
            raise UnsupportedError(
                f"the transformer is fed {call.latents.shape[1]} positions for an image of {height} x {width} (Edit "
                "appends other images, Layered draws several): such latents cannot be steered; use QwenImagePipeline"
            )

    def write(self, call: Call) -> dict[str, Any]:
        # One entry stands for all rows, which are of one size. The call may have fewer or more than there are rows.
        return super().write(call) | {"img_shapes": list(call.shared["img_shapes"][:1])}

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        first = call.shared["img_shapes"][0]  # an image, or the images of a sample: that of the latents and others
        _, height, width = first if isinstance(first[0], int) else first[0]
        return int(height), int(width)

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {"true_cfg_scale": 1.0, "negative_prompt": None}


FAMILY = QwenImage()
