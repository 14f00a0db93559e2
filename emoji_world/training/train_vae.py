"""Train the emoji world's AutoencoderKL (stride 8, 16 latent channels) on crops of rendered scenes.

    python training/train_vae.py --steps 2400     # resumable; hours on two cores, or on a GPU if there is one

Crops around the sprites hold all the detail at a quarter of the cost of whole images. The network is convolutional, so
that it works at any size.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn import functional

from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Placed, Scene, place, render
from learn_to_steer_emoji.sprites import TINTS, object_names
from loop import CHECKPOINTS, DEVICE, MODELS, autocast, half, package, train

CONFIG = {
    "block_out_channels": (16, 48, 96, 160),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 2,
    "sample_size": 128,
    "mid_block_add_attention": False,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.0,
}
CROP = 64
FOLDER = MODELS / "sd-emoji" / "vae"


def scenes(count: int, rng: np.random.Generator) -> list[Scene]:
    """Draw scenes of two to five objects, some of them tinted."""
    names, grounds, colors = object_names(), list(BACKGROUNDS), list(TINTS)
    made = []
    for _ in range(count):
        chosen = rng.choice(len(names), rng.choice([2, 3, 4, 5], p=[0.4, 0.25, 0.2, 0.15]), replace=False)
        objects = place([names[i] for i in chosen], rng)
        if rng.random() < 0.15:
            objects = (Placed(**{**vars(objects[0]), "color": colors[rng.integers(len(colors))]}), *objects[1:])
        made.append(Scene(objects, grounds[rng.integers(len(grounds))], int(rng.integers(1 << 31))))
    return made


def crops(rng: np.random.Generator, pool: int = 384) -> torch.Tensor:
    """Cut crops (n, 3, CROP, CROP) in [-1, 1], shuffled: one around every sprite, and one anywhere in every scene."""
    images, boxes = render(scenes(pool, rng), 128)
    cut = []
    for image, around in zip(images, boxes, strict=True):
        for x0, y0, x1, y1 in around:
            x = np.clip((x0 + x1) / 2 - CROP / 2 + rng.normal(0, 6), 0, 128 - CROP)
            y = np.clip((y0 + y1) / 2 - CROP / 2 + rng.normal(0, 6), 0, 128 - CROP)
            cut.append(image[:, int(y) : int(y) + CROP, int(x) : int(x) + CROP])
        x, y = rng.integers(0, 128 - CROP + 1, 2)
        cut.append(image[:, y : y + CROP, x : x + CROP])
    stacked = torch.stack(cut)[torch.from_numpy(rng.permutation(len(cut)))]
    return stacked * 2 - 1


def reconstruction_loss(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Compute the L1 loss of pixels and of their differences, at three scales, so that edges count as much as areas."""
    loss = torch.zeros((), device=made.device)
    for _ in range(3):
        loss = loss + functional.l1_loss(made, true)
        for axis in (-1, -2):
            loss = loss + functional.l1_loss(made.diff(dim=axis), true.diff(dim=axis))
        made, true = functional.avg_pool2d(made, 2), functional.avg_pool2d(true, 2)
    return loss


def initialise(vae: AutoencoderKL) -> None:
    """Initialise as a nearly linear, well-conditioned code: orthogonal convolutions, small residual branches.

    With the default initialisation, the network needs about twice as many steps until it reproduces colours.
    """
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d) and name.endswith("conv2"):
            module.weight.data.mul_(0.1)
        elif isinstance(module, torch.nn.Conv2d) and not name.endswith("conv1"):
            torch.nn.init.orthogonal_(module.weight, 1.0 if module.kernel_size == (1, 1) or "down" in name else 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=32, help="crops a step")
    parser.add_argument("--kl", type=float, default=3e-3, help="weight of the KL divergence")
    options = parser.parse_args()
    torch.manual_seed(0)
    vae = AutoencoderKL(**CONFIG).to(DEVICE)
    initialise(vae)
    print(f"{sum(p.numel() for p in vae.parameters()):,} parameters on {DEVICE}")
    state: dict[str, torch.Tensor] = {}

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        if "pool" not in state or len(state["pool"]) < options.batch:
            state["pool"] = crops(np.random.default_rng((1, step)))
        batch, state["pool"] = state["pool"][: options.batch].to(DEVICE), state["pool"][options.batch :]
        with autocast():
            posterior = vae.encode(batch).latent_dist
            made = vae.decode(posterior.sample()).sample
        rebuilt = reconstruction_loss(made.float(), batch)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return rebuilt + options.kl * kl, {"l1": functional.l1_loss(made.float(), batch).item() / 2, "kl": kl.item()}

    def show(step: int, weights: dict[str, torch.Tensor]) -> None:
        look = AutoencoderKL(**CONFIG).to(DEVICE)
        look.load_state_dict(weights)
        images, _ = render(scenes(12, np.random.default_rng(7)), 128)
        with torch.no_grad():
            made = look(images.to(DEVICE) * 2 - 1).sample.cpu() / 2 + 0.5
        rows = torch.cat([images[:6], made[:6], images[6:], made[6:]])
        sheet = rows.reshape(4, 6, 3, 128, 128).permute(0, 3, 1, 4, 2).reshape(512, 768, 3)
        Image.fromarray((sheet.clamp(0, 1) * 255).byte().numpy()).save(CHECKPOINTS / "vae" / f"sheet-{step}.png")

    weights = train("vae", vae, loss_of, steps=options.steps, rate=2e-3, on_save=show)
    vae.load_state_dict(weights)
    images, _ = render(scenes(512, np.random.default_rng(11)), 128)
    with torch.no_grad():
        latents = torch.cat([vae.encode(p.to(DEVICE) * 2 - 1).latent_dist.mode().cpu() for p in images.split(64)])  # type: ignore[no-untyped-call]
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.load_state_dict(half(weights))
    package(vae, FOLDER)
    print(json.dumps({"scaling_factor": vae.config.scaling_factor, "latent_mean": latents.mean().item()}))


if __name__ == "__main__":
    main()
