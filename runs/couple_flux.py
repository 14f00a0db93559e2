"""Pairs of a noise and a right picture, drawn by the packaged ``flux:emoji``, for ``train_flux.py straight``.

    torchrun --nproc-per-node 2 runs/couple_flux.py --minutes 30

A picture is right when the packaged detector finds every object of its caption, as many as it asks for, and nothing
else; where it is not, the noise is shaken, more with every try, and the right picture is kept with the noise that was
there first. So the failures are mended and not left out (rejection sampling as in RAFT, arXiv 2304.06767, with the
coupling of rectified flow, arXiv 2209.03003). Every step goes back to the straight line between that noise and the
picture foreseen, which loses fewer objects than Euler's steps and leads there by the states that will be trained on.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import AutoencoderKL
from flux_emoji import Base, Texts, autoencoder, predict, start_packaged, tokenizers, trained
from loop import CHECKPOINTS, DEVICE, RANK, WORLD, autocast
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.detectors.emoji import EmojiDetector, load
from learn_to_steer.emoji.captions import CaptionStyle, caption
from learn_to_steer.emoji.tidy import CELLS
from learn_to_steer.emoji.world import WorldConfig, random_scene

FOLDER = CHECKPOINTS / "flux-pairs"
SHAKEN = (0.0, 0.4, 0.6, 0.8)  # share of a fresh noise in each try
SHARD = 512  # pairs a file
STYLE = CaptionStyle(true_relation=0.30, random_relation=0.12)  # as train_flux.py base


@dataclass
class Wanted:
    """A caption, what it asks for, the noise (64, 64) it belongs to, and the best picture so far."""

    caption: str
    objects: Counter[str]
    noise: torch.Tensor
    tries: int = 0
    score: float = -np.inf
    clean: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Wanted:
        scene = random_scene(rng, WorldConfig(cells=CELLS))
        return cls(caption(scene, rng, STYLE), Counter(p.name for p in scene.objects), torch.randn(64, 64))

    def shaken(self) -> torch.Tensor:
        share = SHAKEN[self.tries]
        return self.noise if not share else (1 - share**2) ** 0.5 * self.noise + share * torch.randn_like(self.noise)

    def look(self, clean: torch.Tensor, found: Counter[str]) -> None:
        """Keep ``clean`` (64, 64) if it is the best try; ``score`` is 0 when it is right."""
        score = -float((self.objects - found).total() + 0.5 * (found - self.objects).total())
        self.tries += 1
        if score > self.score:
            self.score, self.clean = score, clean

    @property
    def over(self) -> bool:
        return self.score == 0 or self.tries == len(SHAKEN)


@torch.no_grad()
def sample(
    base: Base, texts: Texts, captions: list[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    """Clean packed latents (n, 64, 64) for ``noise`` of that shape, each state on the straight line to it."""
    text, pooled = texts(base, captions)
    scale = torch.full((len(captions),), guidance, device=DEVICE)
    state = clean = noise
    for step in range(steps):
        now, then = 1 - step / steps, 1 - (step + 1) / steps
        at = torch.full((len(captions),), now, device=DEVICE)
        clean = state - now * predict(base.transformer, state, at, text, pooled, scale).float()
        state = torch.lerp(clean, noise, then)
    return clean


@torch.no_grad()
def seen(vae: AutoencoderKL, detector: EmojiDetector, clean: torch.Tensor) -> list[Counter[str]]:
    """Names that the detector finds in the pictures of packed latents."""
    grid = clean.reshape(-1, 8, 8, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 16, 16, 16)
    with autocast():
        pixels = vae.decode(grid / vae.config.scaling_factor + (vae.config.shift_factor or 0)).sample
    pictures = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Counter(d.name for d in boxes) for boxes in detector.detect([Image.fromarray(p) for p in pictures])]


class Pairs:
    """All that was written so far."""

    def __init__(self) -> None:
        files = sorted(FOLDER.glob("*.safetensors"))
        if not files:
            raise SystemExit(f"there are no pairs in {FOLDER}: run couple_flux.py first")
        shards = [storage.load_tensors(file)[0] for file in files]
        self.noise, self.clean = (torch.cat([shard[name] for shard in shards]) for name in ("noise", "clean"))
        self.captions = [text for file in files for text in storage.read_json(file.with_suffix(".json"))]

    def draw(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        """Clean packed latents (count, 64, 64), captions (one in ten empty) and noise."""
        rows = rng.integers(len(self.captions), size=count)
        captions = ["" if rng.random() < 0.1 else self.captions[row] for row in rows]
        return self.clean[rows].float().to(DEVICE), captions, self.noise[rows].float().to(DEVICE)


def write(pairs: list[Wanted]) -> None:
    taken = len(list(FOLDER.glob(f"{RANK}-*.safetensors")))
    tensors = {name: torch.stack([getattr(p, name) for p in pairs]).half() for name in ("noise", "clean")}
    storage.write_json(FOLDER / f"{RANK}-{taken}.json", [p.caption for p in pairs])
    storage.save_tensors(FOLDER / f"{RANK}-{taken}.safetensors", tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=6.0)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    base = Base(*tokenizers()).to(DEVICE)
    start_packaged(**{name: getattr(base, name) for name in ("text_encoder", "text_encoder_2", "transformer")})
    base, texts, vae, detector = trained(base.requires_grad_(False)), Texts(*tokenizers()), autoencoder(), load()

    before = len(list(FOLDER.glob("*.safetensors")))  # a second run draws others
    rng = np.random.default_rng((41, before, RANK))
    torch.manual_seed(41 + WORLD * before + RANK)
    began, slots, done, tried, right = time.monotonic(), [], [], 0, 0
    while (spent := time.monotonic() - began) < 60 * options.minutes:
        slots += [Wanted.draw(rng) for _ in range(options.batch - len(slots))]
        noise = torch.stack([one.shaken() for one in slots]).to(DEVICE)
        clean = sample(base, texts, [one.caption for one in slots], noise, options.steps, options.guidance)
        for one, latents, found in zip(slots, clean.cpu(), seen(vae, detector, clean), strict=True):
            one.look(latents, found)
        over = [one for one in slots if one.over]
        slots = [one for one in slots if not one.over]
        tried, right = tried + sum(one.tries for one in over), right + sum(one.score == 0 for one in over)
        done += [one for one in over if one.score >= -1]
        if len(done) >= SHARD:
            write(done[:SHARD])
            done = done[SHARD:]
        print(f"{tried} pictures, {right} captions met, {options.minutes - spent / 60:.0f} min left", flush=True)
    if done:
        write(done)


if __name__ == "__main__":
    main()
