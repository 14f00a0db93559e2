"""Named procedural backgrounds, rendered in a batch on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Background:
    """How one kind of background is drawn: two colours that meet at a horizon, and a texture.

    Attributes:
        phrase: How captions name it, as "on the beach".
        top: RGB in [0, 1] above the horizon.
        bottom: RGB in [0, 1] below the horizon.
        horizon: Range in which the horizon lies, as fractions of the height from the top.
        softness: Height of the blend between the two colours, as a fraction of the image's height.
        stripes: How much darker horizontal stripes are than the rest, as on wooden planks.
        grain: Strength of smooth noise.
    """

    phrase: str
    top: RGB
    bottom: RGB
    horizon: tuple[float, float] = (0.4, 0.6)
    softness: float = 0.5
    stripes: float = 0.0
    grain: float = 0.0


BACKGROUNDS: dict[str, Background] = {
    "white": Background("on a white background", (0.97, 0.97, 0.97), (0.93, 0.93, 0.93)),
    "gray": Background("on a gray background", (0.66, 0.66, 0.68), (0.56, 0.56, 0.58)),
    "pink": Background("on a pink background", (0.98, 0.80, 0.85), (0.95, 0.70, 0.78)),
    "sky": Background("in the sky", (0.45, 0.70, 0.95), (0.82, 0.92, 0.99), softness=0.9, grain=0.03),
    "grass": Background("on the grass", (0.70, 0.86, 0.97), (0.42, 0.68, 0.30), (0.15, 0.45), 0.03, grain=0.05),
    "beach": Background("on the beach", (0.35, 0.68, 0.86), (0.93, 0.84, 0.62), (0.20, 0.50), 0.03, grain=0.03),
    "snow": Background("in the snow", (0.72, 0.82, 0.92), (0.96, 0.97, 1.00), (0.20, 0.50), 0.08, grain=0.02),
    "night": Background("at night", (0.05, 0.07, 0.20), (0.18, 0.20, 0.38), softness=0.9, grain=0.02),
    "wood": Background("on a wooden table", (0.72, 0.53, 0.34), (0.64, 0.45, 0.27), stripes=0.06, grain=0.03),
    "desert": Background("in the desert", (0.98, 0.88, 0.70), (0.86, 0.66, 0.40), (0.25, 0.55), 0.04, grain=0.03),
}


def draw(
    names: list[str], seeds: list[int], height: int, width: int, device: torch.device
) -> Float[Tensor, "batch 3 height width"]:
    """Render backgrounds.

    All randomness (colour shift, horizon, planks, grain) is drawn on the CPU: an image is the same on every device.

    Args:
        names: Keys of ``BACKGROUNDS``, one per image.
        seeds: One per image.
        height: In pixels.
        width: In pixels.
        device: Where the images are made.

    Returns:
        RGB in [0, 1].
    """
    backgrounds = [BACKGROUNDS[name] for name in names]
    randoms = torch.stack([torch.rand(6 + 64, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    randoms = randoms.to(device)
    n = len(names)

    def table(values: list[float] | list[RGB]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    shift = (randoms[:, :3] - 0.5) * 0.10
    top = table([b.top for b in backgrounds]) + shift
    bottom = table([b.bottom for b in backgrounds]) + shift
    low, high = table([b.horizon[0] for b in backgrounds]), table([b.horizon[1] for b in backgrounds])
    horizon = low + (high - low) * randoms[:, 3]
    softness = table([b.softness for b in backgrounds])
    y = (torch.arange(height, device=device) + 0.5) / height
    blend = ((y[None] - horizon[:, None]) / softness[:, None] + 0.5).clamp(0, 1)
    image = top[:, :, None] + (bottom - top)[:, :, None] * blend[:, None]
    planks = torch.tensor([b.stripes for b in backgrounds], device=device)[:, None] * (
        torch.sin((y[None] * (5 + 3 * randoms[:, 4:5]) + randoms[:, 5:6]) * 6.2832) > 0.6
    )
    image = (image - planks[:, None])[..., None].expand(n, 3, height, width)
    grain = torch.nn.functional.interpolate(
        randoms[:, 6:].reshape(n, 1, 8, 8) - 0.5, (height, width), mode="bicubic", align_corners=False
    )
    strength = table([b.grain for b in backgrounds]).reshape(n, 1, 1, 1)
    return (image + 2 * strength * grain).clamp(0, 1)
