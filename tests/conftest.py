"""Fixtures that several rooms share: a Stable Diffusion pipeline, tiny and random, built in code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tiny_sd() -> Iterator[Any]:
    """A StableDiffusionPipeline of random weights for 64 x 64 pictures: f=8 VAE, cross-attention at 2 levels.

    Its maps: 7 layers x 2 heads, 14 channels. The tokenizer is
    the emoji world's; the scheduler is DDIM, epsilon prediction, 1000 times. Built anew for every test.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        folder = files("learn_to_steer").joinpath("emoji", "data", "sd-emoji", "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=16,
            out_channels=16,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(4, 4, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=2,
            sample_size=64,
            scaling_factor=1.0,
            shift_factor=0.0,
            mid_block_add_attention=False,
        )
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        pipe = StableDiffusionPipeline(
            vae=vae.eval(),
            text_encoder=text_encoder.eval(),
            tokenizer=tokenizer,
            unet=unet.eval(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        yield pipe


@pytest.fixture
def random_classifier() -> Callable[..., Any]:
    """``random_classifier(denoiser, **sizes)``: an untrained classifier that fits a Stable Diffusion UNet's maps."""
    import torch

    from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
    from learn_to_steer.families.sd import FAMILY

    def build(denoiser: Any, **sizes: Any) -> Any:
        layout = FAMILY.layout(denoiser)
        small = {"width": 32, "layers": 1, "hidden": 32, "head_layers": 1, "head_hidden": 32}
        levels = (0.99, 0.95, 0.9, 0.8)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return RelationClassifier(
                ClassifierConfig(
                    classes=("above", "below", "is", "left of", "right of"),
                    channels=layout.channels,
                    times=len(levels),
                    levels=levels,
                    layout=layout.as_dict(),
                    **(small | sizes),
                )
            ).eval()

    return build


@pytest.fixture
def saved_sd(tiny_sd: Any, random_classifier: Callable[..., Any], tmp_path: Path) -> Path:
    """The folder of ``tiny_sd`` as a diffusers model; ``classifier`` in it holds a random classifier for it."""
    from learn_to_steer.classifier import save

    folder = tmp_path / "tiny-sd"
    tiny_sd.save_pretrained(folder)
    save(random_classifier(tiny_sd.unet), folder / "classifier")
    return folder
