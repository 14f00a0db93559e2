"""Z-Image: a transformer that is fed image and text as one sequence, rectified flow.

The maps of the main layers are captured, not those of the first ones, in which image and text are still apart. The
image comes first in the sequence, then the text; each is filled up to a multiple of 32 places with padding that is no
part of the maps. Time runs from 0 at pure noise to 1, and the negative of the velocity is predicted.

Latents, texts and predictions are lists with one entry per sample. In a guided batch the rows of the prompts come
first. The text is a chat with the prompt as the user's message; all of it has text columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.base import Call
from learn_to_steer.families.defaults import FEW_STEP_LEVELS, RectifiedFlow, Transformer
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import TextSpan
from learn_to_steer.prompts import token_indices

_MULTIPLE = 32  # of the lengths of image and text
_USUAL = Variant(
    name="z-image",
    family="z-image",
    source="Tongyi-MAI/Z-Image",
    resolution=1024,
    steps=50,
    guidance=4.0,
    step_size=5.0,
    dtype="bfloat16",
)
VARIANTS = (
    _USUAL,
    replace(
        _USUAL,
        name="z-image:turbo",
        source="Tongyi-MAI/Z-Image-Turbo",
        steps=9,
        guidance=0.0,
        levels=FEW_STEP_LEVELS,
        # The first step alone. Its scheduler begins with several steps that are almost pure noise.
        steering={"by_step_index": True, "window": 0.1},
    ),
)


class ZImage(RectifiedFlow, Transformer):
    """The facts of Z-Image pipelines."""

    name = "z-image"
    network = "ZImageTransformer2DModel"
    pipelines = ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline")
    modular_pipelines = ("ZImageModularPipeline",)
    conditional = "first"
    blocks: Mapping[str, str] = {"layers": "attention"}
    text_place = "last"
    parameters = ("x", "t", "cap_feats")
    inputs = ("x", "t")
    lists = ("cap_feats",)
    longest_text = 512

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        return config.get("siglip_feat_dim") is None  # the Omni model reads images as well

    def check(self, pipe: Any) -> None:
        return None  # this transformer predicts as many channels as it is fed

    def default_variant(self, pipe: Any, model: str) -> Variant:
        return replace(_USUAL, name=model, source=model)

    def pixel_multiple(self, pipe: Any) -> int:
        return int(pipe.vae_scale_factor) * _patch_size(pipe.transformer)

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        return tuple(module for name, module in denoiser.named_modules() if name.endswith(".attention"))

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        # The prompt may also occur in the words of the template, so a text that cannot is put in its place.
        before, _, after = _chat(pipe.tokenizer, "\ue000").partition("\ue000")
        chat = _chat(pipe.tokenizer, prompt)
        if chat != before + prompt + after:
            raise UnsupportedError(f"the chat template of the tokenizer changes the prompt {prompt!r}; word it anew")
        moved = [(start + len(before), end + len(before)) for start, end in spans]
        return token_indices(pipe.tokenizer, chat, moved, max_length=self.longest(arguments))

    def text_length(self, call: Call) -> int:
        return max(len(text) for text in call.lists["cap_feats"])

    def spans(self, denoiser: nn.Module, call: Call) -> Sequence[TextSpan]:
        height, width = self.latent_size(denoiser, call)
        start = -(-height * width // _MULTIPLE) * _MULTIPLE
        return [TextSpan(start, len(text)) for text in call.lists["cap_feats"]]

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        given = dict(zip(self.parameters, args, strict=False)) | dict(kwargs)
        if isinstance(given["x"][0], (list, tuple)):
            raise UnsupportedError(
                "the transformer is fed further images (Omni): such latents cannot be steered; use ZImagePipeline"
            )
        latents = torch.stack(list(given["x"]))[:, :, 0]  # of one frame
        return super().read(denoiser, (), given | {"x": latents})

    def write(self, call: Call) -> dict[str, Any]:
        return super().write(call) | {"x": list(call.latents[:, :, None].unbind())}

    def predicted(self, output: Any, call: Call) -> Tensor:
        return -torch.stack(list(output))[:, :, 0]

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        patch = _patch_size(denoiser)
        return call.latents.shape[-2] // patch, call.latents.shape[-1] // patch

    def sigma(self, pipe: Any, time: Tensor) -> Tensor:
        return 1 - time

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        return 1 - levels

    def model_timestep(self, pipe: Any, timestep: Tensor) -> Tensor:
        return (1000 - timestep) / 1000

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        return {"guidance_scale": 0.0}  # 1 would be guidance: the pipeline adds the difference to the prediction


def _patch_size(denoiser: Any) -> int:
    """Height and width of a patch; of several sizes that are declared, the pipelines use the first."""
    return int(denoiser.config.all_patch_size[0])


def _chat(tokenizer: Any, prompt: str) -> str:
    """The text that is encoded for a prompt."""
    chat = [{"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    return text


FAMILY = ZImage()
