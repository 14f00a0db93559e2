"""Train ``sd:emoji``: UNet and CLIP text encoder together, from scratch, on rendered and captioned scenes.

    python training/train_base.py --steps 6800      # resumable; on a GPU when there is one
    torchrun --nproc-per-node 2 training/train_base.py --steps 6800 --batch 24     # the same on two cores
    python training/train_base.py --export          # write the newest checkpoint, or --weights, into the package

Needs the tokenizer and the VAE (train_tokenizer.py, train_vae.py). Latents are computed once, in chunks that
join the pool as training goes on; captions are drawn anew every time a scene is seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from learn_to_steer_emoji.captions import RICH
from learn_to_steer_emoji.world import FINE
from loop import (
    CHECKPOINTS,
    DEVICE,
    FAST_BF16,
    MODELS,
    RANK,
    WORLD,
    autocast,
    clip_encoder,
    fast_copy,
    half,
    newest,
    package,
    train,
)
from pool import CLASSES, PROMPTS, Pool, class_weights, save_sheet

FOLDER = MODELS / "sd-emoji"


class Base(nn.Module):
    """UNet and text encoder as one module to train.

    ``what`` names, from features halfway up the UNet, the object in every latent cell. It is a training aid
    alone (in the spirit of representation alignment, arXiv 2410.06940, with the rendered scene's labels as
    the representation): the denoiser learns sooner what stands where. It is not packaged and sees no maps.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = clip_encoder(tokenizer, layers=3, intermediate=512)
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=16,
            out_channels=16,
            block_out_channels=(96, 192),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=4,
            norm_num_groups=16,
        )
        self.what = nn.Conv2d(192, CLASSES, 1)
        self.features: torch.Tensor | None = None
        self.unet.up_blocks[0].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> None:
        self.features = output


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def pipeline(base: Base, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline(
        vae, base.text_encoder, tokenizer, base.unet, scheduler(), None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=48, help="scenes a step and process")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--chunks", type=int, default=80, help="of 512 scenes a process")
    parser.add_argument("--aid", type=float, default=0.1, help="weight of naming the objects")
    parser.add_argument("--minutes", type=float, help="let the rate fall to nothing over this time, then stop")
    parser.add_argument("--cool", type=float, help="with --minutes: the rate falls in the last so many of them alone")
    parser.add_argument("--warmup", type=int, default=100, help="steps over which the rate rises")
    parser.add_argument("--save-minutes", type=float, help="minutes between checkpoints; default: every 200 steps")
    parser.add_argument("--name", default="base", help="folder of the checkpoints")
    parser.add_argument("--weights", type=Path, help="go on from these instead of the packaged ones")
    parser.add_argument("--fine", action="store_true", help="upright scenes in steps of a latent cell, rich captions")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the newest averaged weights, half precision")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--export", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    vae = AutoencoderKL.from_pretrained(FOLDER / "vae", torch_dtype=torch.float32).to(DEVICE).requires_grad_(False)
    base = Base(tokenizer).to(DEVICE)
    if FAST_BF16 and DEVICE.type == "cpu":
        base.unet.set_attn_processor(AttnProcessor())  # plain softmax: in bf16 its backward is faster there
    if options.write is not None:
        save_file(half(newest(options.name)), options.write)
        print(f"wrote {options.write}")
        return
    if options.export:
        base.load_state_dict(load_file(options.weights) if options.weights else newest(options.name))
        for part in ("unet", "text_encoder"):
            package(getattr(base, part), FOLDER / part)
        scheduler().save_pretrained(FOLDER / "scheduler")
        parts = {
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
        }
        index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.35.0", **parts}
        index["requires_safety_checker"] = False
        (FOLDER / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
        print(f"exported {options.name} to the package")
        return
    if options.weights is not None:
        base.load_state_dict(load_file(options.weights))
    elif (FOLDER / "unet").exists():
        # No checkpoint on this machine: go on from the packaged weights (a checkpoint replaces them).
        base.unet.load_state_dict(UNet2DConditionModel.from_pretrained(FOLDER / "unet").state_dict())
        base.text_encoder.load_state_dict(CLIPTextModel.from_pretrained(FOLDER / "text_encoder").state_dict())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in base.named_children()}
    print(f"{count} parameters on {DEVICE}", flush=True)
    kept = scheduler().alphas_cumprod.to(DEVICE)
    snr = kept / (1 - kept)
    # min-SNR keeps the nearly clean steps from drowning the layout; the constant raises the noisy ones, where
    # objects and places are settled and plain noise prediction asks for nearly nothing.
    loss_weight = ((snr.clamp(max=5) + 0.3) / snr).clamp(max=10)
    fast = fast_copy(base)
    world, style = (FINE, RICH) if options.fine else (None, None)
    pool, weights = Pool(vae, options.chunks, world, style), class_weights()

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        pool.grow(step)
        rng = np.random.default_rng((2, step, RANK))
        clean, captions, standing = pool.draw(rng, options.batch)
        tokens = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        torch.manual_seed(step * WORLD + RANK)
        noise = torch.randn_like(clean)
        spread = torch.arange(options.batch, device=DEVICE) + torch.rand(options.batch, device=DEVICE)
        times = (spread * (1000 / options.batch)).long().clamp(max=999)  # every batch covers all noise levels
        level = kept[times].view(-1, 1, 1, 1)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        text = fast.text_encoder(tokens.input_ids.to(DEVICE))[0]
        guess = fast.unet(noisy.to(fast.unet.dtype), times, text).sample
        named = fast.what(fast.features)
        aid = functional.cross_entropy(named.float(), standing, weights)
        errors = (guess.float() - noise).square().mean((1, 2, 3))
        loss = (errors * loss_weight[times]).mean() + options.aid * aid
        return loss, {"mse": errors.mean().item(), "aid": aid.item()}

    def show(step: int, weights: dict[str, torch.Tensor]) -> None:
        if step % 400:
            return
        look = Base(tokenizer).to(DEVICE)
        look.load_state_dict(weights)
        seeds = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
        with autocast():
            made = pipeline(look, vae, tokenizer)(
                list(PROMPTS), num_inference_steps=25, guidance_scale=4.0, generator=seeds, output_type="np"
            ).images
        save_sheet(made, CHECKPOINTS / options.name / f"sheet-{step}.png")

    train(
        options.name,
        base,
        loss_of,
        steps=options.steps,
        rate=options.rate,
        ema_decay=options.ema,
        on_save=show,
        compute_copy=fast,
        muon=True,
        tail=0.25,
        minutes=options.minutes,
        cool=options.cool,
        save_minutes=options.save_minutes,
        warmup=options.warmup,
    )


if __name__ == "__main__":
    main()
