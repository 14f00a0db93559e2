"""The parts of ``flux:emoji``: how they are built, put together as a FluxPipeline, and written to the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from loop import DEVICE, FAST_BF16, MODELS, clip_encoder, fast_copy, package
from pool import CLASSES

FOLDER = MODELS / "flux-emoji"
FEW = MODELS / "flux-emoji-schnell"
COLUMNS = 48  # text columns: the longest caption has 45 pieces


def tokenizers() -> tuple[CLIPTokenizer, T5TokenizerFast]:
    return (
        CLIPTokenizer.from_pretrained(MODELS / "sd-emoji" / "tokenizer"),
        T5TokenizerFast.from_pretrained(FOLDER / "tokenizer_2"),
    )


def autoencoder() -> AutoencoderKL:
    """The one of ``sd:emoji``."""
    vae = AutoencoderKL.from_pretrained(MODELS / "sd-emoji" / "vae", torch_dtype=torch.float32)
    return vae.to(DEVICE).requires_grad_(False)


def transformer(guidance: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=3,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        guidance_embeds=guidance,
        axes_dims_rope=(8, 12, 12),
    )


def t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=384,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            attn_implementation="eager",  # the backward of fused attention is slow on a CPU
        )
    )


class Base(nn.Module):
    """Transformer and both text encoders as one module to train.

    ``what`` names, from the picture's tokens after the double blocks, the object in each of their four latent
    cells: the training aid of train_base.py. It is not packaged.
    """

    def __init__(self, clip: CLIPTokenizer, t5: T5TokenizerFast) -> None:
        super().__init__()
        self.text_encoder = clip_encoder(clip, layers=1, intermediate=256)
        self.text_encoder_2 = t5_encoder(t5)
        self.transformer = transformer(guidance=True)
        self.what = nn.Linear(160, 4 * CLASSES)
        self.features: torch.Tensor | None = None
        self.transformer.transformer_blocks[-1].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.features = output[1]

    def parts(self) -> dict[str, nn.Module]:
        """What is packaged of it, by folder."""
        return {name: getattr(self, name) for name in ("text_encoder", "text_encoder_2", "transformer")}

    def named(self) -> torch.Tensor:
        """Class scores (n, CLASSES, 16, 16) of the latent cells, from the last forward."""
        scores = self.what(self.features)
        grid = scores.reshape(-1, 8, 8, 2, 2, CLASSES)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, CLASSES, 16, 16)  # type: ignore[no-any-return]


def start_packaged(folder: Path, parts: dict[str, Any]) -> None:
    """Start ``parts``, by their names in ``folder``, from its weights if there are any; a checkpoint replaces them."""
    for name, part in parts.items():
        if (folder / name).exists():
            kept = type(part).from_pretrained(folder / name, torch_dtype=torch.float32)
            part.load_state_dict(kept.state_dict())


class Texts:
    """Captions to embeddings, tokenized as FluxPipeline does."""

    def __init__(self, clip: CLIPTokenizer, t5: T5TokenizerFast) -> None:
        self.clip, self.t5 = clip, t5

    def __call__(self, base: Base, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 embeddings (n, 48, 128) and the pooled CLIP vector (n, 128)."""
        settings = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        pooled = base.text_encoder(self.clip(captions, max_length=77, **settings).input_ids.to(DEVICE)).pooler_output
        text = base.text_encoder_2(self.t5(captions, max_length=COLUMNS, **settings).input_ids.to(DEVICE))[0]
        return text, pooled


def trained(network: nn.Module) -> Any:
    """A copy of ``network`` to compute with, while it trains or as a teacher; in bf16 where that is fast.

    On a CPU in bf16 with plain attention, since the fused one's backward is slow, and with compiled blocks, which halve
    a step (whole transformers do not compile there with torch 2.13).
    """
    fast: Any = fast_copy(network)
    inner = getattr(fast, "transformer", fast)
    if FAST_BF16 and DEVICE.type == "cpu":
        inner.set_attention_backend("_native_math")
    if DEVICE.type != "cpu" or shutil.which("g++"):
        inner.compile_repeated_blocks()
    return fast


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(n, 16, 16, 16) -> (n, 64, 64), as FluxPipeline packs."""
    return FluxPipeline._pack_latents(latents, len(latents), 16, 16, 16)  # type: ignore[no-any-return]


def predict(
    network: FluxTransformer2DModel,
    noisy: torch.Tensor,
    time: torch.Tensor,
    text: torch.Tensor,
    pooled: torch.Tensor,
    guidance: torch.Tensor | None,
) -> torch.Tensor:
    """The velocity (n, 64, 64); ``time`` in [0, 1]."""
    kind = next(network.parameters()).dtype
    ids = FluxPipeline._prepare_latent_image_ids(1, 8, 8, DEVICE, torch.float32)
    return network(  # type: ignore[no-any-return]
        hidden_states=noisy.to(kind),
        encoder_hidden_states=text.to(kind),
        pooled_projections=pooled.to(kind),
        timestep=time.to(kind),
        img_ids=ids,
        txt_ids=torch.zeros(text.shape[1], 3, device=DEVICE),
        guidance=guidance,
    ).sample


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def pipeline(base: Base, network: FluxTransformer2DModel, vae: AutoencoderKL, texts: Texts) -> FluxPipeline:
    parts = (scheduler(), vae, base.text_encoder, texts.clip, base.text_encoder_2, texts.t5, network)
    pipe = FluxPipeline(*parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def export(folder: Path, parts: dict[str, nn.Module]) -> None:
    """Write ``parts`` in half precision and the index of the pipeline; what is not among them is shared."""
    for name, part in parts.items():
        package(part, folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "FluxPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "image_encoder": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
