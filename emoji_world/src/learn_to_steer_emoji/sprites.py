"""The sprites: the names of all objects, whether classifiers are trained on them (seen) or not (unseen), their pixels.

They are cut from Noto Color Emoji (SIL Open Font License 1.1, notice in ``data/LICENSE-OFL.txt``) by
``training/cut_sprites.py``. An alias is another word for the same sprite: "mouse" is a computer mouse here, so
GenEval's "computer mouse" is an alias of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Colour words that a sprite can be tinted with, and the RGB in [0, 1] that its brightness is multiplied by.
TINTS: dict[str, tuple[float, float, float]] = {
    "red": (0.95, 0.15, 0.12),
    "blue": (0.16, 0.32, 0.95),
    "green": (0.12, 0.72, 0.22),
    "yellow": (1.00, 0.88, 0.10),
    "purple": (0.58, 0.18, 0.80),
    "orange": (1.00, 0.52, 0.06),
}


@dataclass(frozen=True)
class SpriteName:
    """One kind of object.

    Attributes:
        name: The word that detectors report.
        split: "seen" if classifiers are trained on it, else "unseen".
        aliases: Other words for it, which prompts and captions may use.
    """

    name: str
    split: str
    aliases: tuple[str, ...]


@cache
def sprite_names() -> tuple[SpriteName, ...]:
    """Return all kinds of objects, in the order of the detectors' class numbers."""
    entries = json.loads(files(__package__).joinpath("data", "sprites.json").read_text())["sprites"]
    return tuple(SpriteName(e["name"], e["split"], tuple(e["aliases"])) for e in entries)


def object_names(split: str | None = None) -> tuple[str, ...]:
    """Return the names of objects, without aliases.

    Args:
        split: "seen" or "unseen"; None for both.

    Returns:
        The names in the order of the class numbers.
    """
    return tuple(s.name for s in sprite_names() if split is None or s.split == split)


@cache
def canonical_names() -> dict[str, str]:
    """Return a dict from every name and alias to the name of its sprite."""
    return {word: s.name for s in sprite_names() for word in (s.name, *s.aliases)}


@cache
def class_indices() -> dict[str, int]:
    """Return a dict from every name (aliases left out) to its class number."""
    return {s.name: i for i, s in enumerate(sprite_names())}


@cache
def atlas() -> Float[Tensor, "classes 4 side side"]:
    """Return the pixels of all sprites: RGBA in [0, 1], with RGB multiplied by alpha."""
    # Imported here, so that the names can be had without importing torch.
    import numpy as np
    import torch
    from PIL import Image

    head = json.loads(files(__package__).joinpath("data", "sprites.json").read_text())
    side, columns = head["side"], head["columns"]
    with files(__package__).joinpath("data", "sprites.png").open("rb") as file:
        sheet = torch.from_numpy(np.array(Image.open(file).convert("RGBA"))).permute(2, 0, 1).float() / 255
    cells = [
        sheet[:, i // columns * side : (i // columns + 1) * side, i % columns * side : (i % columns + 1) * side]
        for i in range(len(head["sprites"]))
    ]
    stacked = torch.stack(cells)
    stacked[:, :3] *= stacked[:, 3:]
    return stacked
