"""Teach the VAE's decoder the base model's hand: it paints what the denoiser meant, and the latent space stays.

    python runs/train_decoder.py --minutes 30

A small denoiser's latents are a little off, and a decoder that has only seen encoded pictures renders every slip. Here
scenes are noised and denoised by ``sd:emoji`` in one or two steps, and the decoder learns to paint the scene itself
from what comes out; a quarter of the batch is plain reconstruction. Encoder, denoiser, maps and classifier do not
change, so what steering does to latents is the same as before.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from diffusers import AutoencoderKL
from loop import CHECKPOINTS, DEVICE, MODELS, autocast, half, train
from PIL import Image
from pool import Pool
from torch.nn import functional
from train_vae import reconstruction_loss

from learn_to_steer.emoji.captions import caption
from learn_to_steer.emoji.scenes import render
from learn_to_steer.families._load import load_pipeline

FOLDER = MODELS / "sd-emoji" / "vae"
PLAIN = 0.25  # share of a batch that is decoded from its own encoding
NOISE = (100, 650)  # timesteps that are gone back to: beyond them objects change places
GUIDANCE = 4.0


class Hand:
    """The base model, to redraw latents with."""

    def __init__(self) -> None:
        pipe, _ = load_pipeline("sd:emoji")
        self.unet, self.text = pipe.unet.bfloat16().to(DEVICE), pipe.text_encoder.bfloat16().to(DEVICE)
        self.tokenizer, self.kept = pipe.tokenizer, pipe.scheduler.alphas_cumprod.to(DEVICE)

    def _noise(self, noisy: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        return self.unet(noisy.bfloat16(), times, texts).sample.float()

    def _texts(self, captions: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        return self.text(tokens.input_ids.to(DEVICE))[0]

    @torch.no_grad()
    def redraw(self, clean: torch.Tensor, captions: list[str], rng: np.random.Generator) -> torch.Tensor:
        """``clean`` latents, noised to a random level each and denoised in one step, or in two with guidance."""
        times = torch.from_numpy(rng.integers(*NOISE, len(clean))).to(DEVICE)
        level = self.kept[times].view(-1, 1, 1, 1)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * torch.randn_like(clean)
        texts = self._texts(captions)
        if rng.random() < 0.5:
            return (noisy - (1 - level).sqrt() * self._noise(noisy, times, texts)) / level.sqrt()
        empty = self._texts([""]).expand(len(clean), -1, -1)
        for after in (times // 2, None):
            plain, asked = self._noise(
                torch.cat([noisy, noisy]), torch.cat([times, times]), torch.cat([empty, texts])
            ).chunk(2)
            noise = plain + GUIDANCE * (asked - plain)
            guess = (noisy - (1 - level).sqrt() * noise) / level.sqrt()
            if after is not None:
                times, level = after, self.kept[after].view(-1, 1, 1, 1)
                noisy = level.sqrt() * guess + (1 - level).sqrt() * noise
        return guess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=99999)
    parser.add_argument("--minutes", type=float, help="let the rate fall to nothing over this time, then stop")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(FOLDER, torch_dtype=torch.float32).to(DEVICE)
    hand, pool = Hand(), Pool(vae, 4)
    pool.grow(10**6)

    def batch(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of which three quarters are redrawn, unscaled, and the true pictures in [-1, 1]."""
        rows = rng.integers(len(pool.scenes), size=count)
        latents, plain = pool.latents(rows), int(count * PLAIN)
        captions = [caption(pool.scenes[r], rng) for r in rows[plain:]]
        latents[plain:] = hand.redraw(latents[plain:], captions, rng)
        pictures, _ = render([pool.scenes[r] for r in rows], 128, device=DEVICE)
        return latents / vae.config.scaling_factor, pictures * 2 - 1

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        torch.manual_seed(step)
        latents, true = batch(np.random.default_rng((9, step)), options.batch)
        with autocast():
            made = vae.decoder(latents)
        plain = int(options.batch * PLAIN)
        off = (made.float() - true).abs().mean((1, 2, 3)) / 2
        losses = {"l1": off[plain:].mean().item(), "plain": off[:plain].mean().item()}
        return reconstruction_loss(made.float(), true), losses

    torch.manual_seed(0)
    shown = batch(np.random.default_rng(5), 12)

    def show(step: int, weights: dict[str, torch.Tensor]) -> None:
        look = AutoencoderKL.from_config(vae.config)
        look.decoder.load_state_dict(weights)
        with torch.no_grad():
            made = look.decoder(shown[0].cpu())
        print(f"l1 of the sheet {functional.l1_loss(made, shown[1].cpu()).item() / 2:.4f}", flush=True)
        rows = torch.cat([shown[1][:6].cpu(), made[:6], shown[1][6:].cpu(), made[6:]]) / 2 + 0.5
        sheet = rows.reshape(4, 6, 3, 128, 128).permute(0, 3, 1, 4, 2).reshape(512, 768, 3)
        path = CHECKPOINTS / "decoder" / f"sheet-{step}.png"
        Image.fromarray((sheet.clamp(0, 1) * 255).byte().numpy()).save(path)

    (CHECKPOINTS / "decoder").mkdir(parents=True, exist_ok=True)
    show(0, vae.decoder.state_dict())
    settings = {"steps": options.steps, "minutes": options.minutes, "rate": options.rate, "on_save": show}
    weights = train("decoder", vae.decoder, loss_of, **settings, ema_decay=0.995)
    vae.decoder.load_state_dict(half(weights))
    vae.half().save_pretrained(FOLDER)
    print(f"saved to {FOLDER}", flush=True)


if __name__ == "__main__":
    main()
