"""Random scenes of the emoji world, as the embedded models are trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Scene, place
from learn_to_steer_emoji.sprites import TINTS, object_names
from learn_to_steer_emoji.tidy import arranged


@dataclass(frozen=True)
class WorldConfig:
    """How scenes are drawn: shares of 1..5 objects, of scenes with several of a kind, of tinted scenes.

    With ``cells``, layouts are tidy: see ``emoji.tidy``.
    """

    objects: tuple[float, ...] = (0.12, 0.50, 0.16, 0.12, 0.10)
    counted: float = 0.06
    tinted: float = 0.06
    cells: int | None = None


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
    objects = drawn() if config.cells is None else arranged(drawn, config.cells)
    if rng.random() < config.tinted:
        color = list(TINTS)[rng.integers(len(TINTS))]
        objects = tuple(replace(p, color=color) if p.name == chosen[0] else p for p in objects)
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
