"""Random scenes of the emoji world, as the embedded models are trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Scene, place
from learn_to_steer_emoji.sprites import TINTS, object_names
from learn_to_steer_emoji.tidy import WIDTHS, arranged


@dataclass(frozen=True)
class WorldConfig:
    """How scenes are drawn. Shares lie between 0 and 1.

    Attributes:
        objects: Shares of scenes with 1 to 5 objects.
        counted: Share of scenes with two to four objects of one kind.
        tinted: Share of scenes in which one kind has a colour that is not its own.
        cells: Makes layouts tidy, on a grid of so many cells a side: see ``learn_to_steer_emoji.tidy``.
        widths: The sizes of sprites in tidy layouts, in cells.
        colorful: Share of scenes in which every kind has a colour that is not its own, no two the same.
    """

    objects: tuple[float, ...] = (0.12, 0.50, 0.16, 0.12, 0.10)
    counted: float = 0.06
    tinted: float = 0.06
    cells: int | None = None
    widths: tuple[int, ...] = WIDTHS
    colorful: float = 0.0


# Between tidy and free, for models whose latent cells are 8 of 128 pixels: upright, placed in steps of one such cell.
FINE = WorldConfig(objects=(0.10, 0.56, 0.14, 0.11, 0.09), counted=0.08, cells=16, widths=(4, 5, 6), colorful=0.10)


def random_scene(rng: np.random.Generator, config: WorldConfig | None = None, names: Sequence[str] = ()) -> Scene:
    """Draw one scene, whatever relations come out.

    Args:
        rng: Drawn from.
        config: How scenes are drawn; None for the defaults.
        names: The objects to choose from; all if empty.

    Returns:
        The scene.
    """
    config = config or WorldConfig()
    names = names or object_names()
    count = int(rng.choice(len(config.objects), p=config.objects)) + 1
    chosen = [names[i] for i in rng.choice(len(names), count, replace=False)]
    if rng.random() < config.counted:
        # Two to four of one kind, now and then beside another object.
        chosen = [chosen[0]] * int(rng.integers(2, 5)) + chosen[1 : 1 + int(rng.random() < 0.3)]
    drawn = partial(place, chosen, rng)
    objects = drawn() if config.cells is None else arranged(drawn, config.cells, widths=config.widths)
    if rng.random() < config.tinted:
        color = list(TINTS)[rng.integers(len(TINTS))]
        objects = tuple(replace(p, color=color) if p.name == chosen[0] else p for p in objects)
    if config.colorful and rng.random() < config.colorful:  # no number is drawn for worlds without such scenes
        kinds = dict.fromkeys(chosen)
        colors = dict(zip(kinds, rng.permutation(list(TINTS))[: len(kinds)], strict=True))
        objects = tuple(replace(p, color=str(colors[p.name])) for p in objects)
    grounds = list(BACKGROUNDS)
    return Scene(objects, grounds[rng.integers(len(grounds))], int(rng.integers(1 << 31)))


def random_scenes(count: int, seed: int, config: WorldConfig | None = None, names: Sequence[str] = ()) -> list[Scene]:
    """Draw scenes that depend on the arguments alone.

    Args:
        count: How many.
        seed: Of the random numbers.
        config: How scenes are drawn; None for the defaults.
        names: The objects to choose from; all if empty.

    Returns:
        The scenes.
    """
    rng = np.random.default_rng(seed)
    return [random_scene(rng, config, names) for _ in range(count)]
