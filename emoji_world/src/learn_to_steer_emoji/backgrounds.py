"""Named procedural backgrounds, rendered in a batch on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Background:
    """A recipe: colour above and below a horizon, how soft the horizon is, and a texture.

    ``horizon`` is the range (fraction of the height) in which the border lies; a soft border makes a
    gradient. ``stripes`` is the strength of horizontal planks, ``grain`` of smooth noise.
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


def draw(names: list[str], seeds: list[int], height: int, width: int, device: torch.device) -> torch.Tensor:
    """Render backgrounds, float32 RGB in [0, 1], shape (n, 3, height, width).

    All randomness (hue shift, horizon, grain) comes from ``seeds``, drawn on the CPU, so a picture is the
    same on every device.
    """
    recipes = [BACKGROUNDS[name] for name in names]
    rolls = torch.stack([torch.rand(6 + 64, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    rolls = rolls.to(device)
    n = len(names)

    def table(values: list[float] | list[RGB]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    shift = (rolls[:, :3] - 0.5) * 0.10
    top = table([r.top for r in recipes]) + shift
    bottom = table([r.bottom for r in recipes]) + shift
    low, high = table([r.horizon[0] for r in recipes]), table([r.horizon[1] for r in recipes])
    horizon = low + (high - low) * rolls[:, 3]
    softness = table([r.softness for r in recipes])
    y = (torch.arange(height, device=device) + 0.5) / height
    blend = ((y[None] - horizon[:, None]) / softness[:, None] + 0.5).clamp(0, 1)
    picture = top[:, :, None] + (bottom - top)[:, :, None] * blend[:, None]
    planks = torch.tensor([r.stripes for r in recipes], device=device)[:, None] * (
        torch.sin((y[None] * (5 + 3 * rolls[:, 4:5]) + rolls[:, 5:6]) * 6.2832) > 0.6
    )
    picture = (picture - planks[:, None])[..., None].expand(n, 3, height, width)
    grain = torch.nn.functional.interpolate(
        rolls[:, 6:].reshape(n, 1, 8, 8) - 0.5, (height, width), mode="bicubic", align_corners=False
    )
    strength = table([r.grain for r in recipes]).reshape(n, 1, 1, 1)
    return (picture + 2 * strength * grain).clamp(0, 1)
