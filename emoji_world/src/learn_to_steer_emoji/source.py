"""The sources ``emoji``, ``emoji-clean``, ``emoji-cluttered`` and ``emoji-tidy``: rendered scenes of seen objects.

Every relation comes equally often. Clean scenes show the two objects alone, cluttered ones always more (paper, Table
4). Tidy ones are laid out on the grid of the tokens of ``flux:emoji``, like the scenes that this model is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL, Box, basic_relations
from learn_to_steer.sources import LabelledImage, LabelledImages, SourceRequest, Split
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import CLOSE, Constraint, Placed, Scene, place, render, satisfied
from learn_to_steer_emoji.sprites import object_names
from learn_to_steer_emoji.tidy import CELLS, apart, arranged

LICENSE_NOTE = (
    "scenes rendered from Noto Color Emoji sprites (SIL Open Font License 1.1); objects of the seen split only"
)
CROWDED = 0.4  # share of pictures with further objects, as prompts of several relations have
EVEN = 15.0  # degrees off the exact diagonal within which neither axis is the clear one


@dataclass(frozen=True)
class RenderedScenes:
    """A source of labelled pictures.

    Attributes:
        NOTE: Where the pictures come from, and their licence.
        crowded: Share of the pictures that show one to three further objects.
        cells: Puts upright sprites of two sizes on a grid of so many cells squared (``tidy``); None puts them anywhere.
    """

    NOTE: str = LICENSE_NOTE
    crowded: float = CROWDED
    cells: int | None = None

    def images(self, request: SourceRequest) -> LabelledImages:
        """Draw labelled images; the relations take turns, every tenth turn is for validation and another for tests.

        The neutral relation "is" takes turns as well. Its two objects overlap or nearly touch without a clear axis; or
        one of the two is not in the image (a relation needs both, and steering must not remove one to satisfy it);
        or, unless the four diagonals are relations of their own, they stand exactly diagonally. Image i depends on
        the seed and i alone.

        Args:
            request: Which images are wanted. It has no ``data``, for nothing is read, and no ``exclude``, for
                classifiers are trained on seen objects only.

        Returns:
            The images one by one; their pixels are made when they are needed. None is skipped.

        Raises:
            DataError: At once, when ``data`` or ``exclude`` are given.
        """
        if request.data is not None:
            raise DataError(
                f"the emoji sources draw their pictures and read no data, got {request.data}; leave --data away"
            )
        if request.exclude:
            raise DataError(
                "the emoji sources have a fixed split of objects; --exclude-benchmarks is for real pictures"
            )
        drawn = _drawn(request.limit, request.seed, request.resolution, request.diagonals, self.crowded, self.cells)
        return LabelledImages(drawn)


EMOJI = RenderedScenes()
CLEAN = RenderedScenes(f"{LICENSE_NOTE}; nothing else in the picture", crowded=0.0)
CLUTTERED = RenderedScenes(f"{LICENSE_NOTE}; further objects in every picture", crowded=1.0)
TIDY = RenderedScenes(f"{LICENSE_NOTE}; upright, two sizes, on a grid", cells=CELLS)


def _drawn(
    limit: int, seed: int, side: int, diagonals: bool, crowded: float, cells: int | None
) -> Iterator[LabelledImage]:
    predicates = (*BASIC, *(DIAGONAL if diagonals else ()), NEUTRAL)
    for index in range(limit):
        turn = index // len(predicates)
        predicate = predicates[index % len(predicates)]
        scene, missing = _scene(predicate, turn, [seed, index], diagonals, crowded, cells)
        first, second, *others = scene.objects
        shown = [placed for number, placed in enumerate(scene.objects) if number != missing]
        yield LabelledImage(
            id=f"emoji-{seed}-{index}",
            subject=first.name,
            predicate=predicate,
            object=second.name,
            boxes=(_pixels(first, side), _pixels(second, side)) if missing is None else None,
            split=_split(turn),
            pixels=_Drawing(replace(scene, objects=tuple(shown)), side),
            others=tuple(other.name for other in others),
        )


@dataclass(frozen=True)
class _Drawing:
    """A picture that is drawn when it is called for."""

    scene: Scene
    side: int

    def __call__(self) -> torch.Tensor:
        return render([self.scene], self.side)[0][0]


def _split(turn: int) -> Split:
    if turn % 10 == 1:
        return "val"
    return "test" if turn % 10 == 2 else "train"


def _scene(
    predicate: str, turn: int, seed: list[int], diagonals: bool, crowded: float, cells: int | None
) -> tuple[Scene, int | None]:
    """A scene whose first two objects are ``predicate`` of each other, and which of the two to leave out, if any."""
    rng = np.random.default_rng(seed)
    names = object_names("seen")
    extra = int(rng.integers(1, 4)) if rng.random() < crowded else 0
    chosen = [names[i] for i in rng.choice(len(names), 2 + extra, replace=False)]
    alone = predicate == NEUTRAL and turn % 3 == 1
    even = predicate == NEUTRAL and turn % 3 == 2 and not diagonals
    close = predicate == NEUTRAL and not alone and not even
    constraints = [] if alone else [Constraint(0, predicate, 1)]
    drawn = partial(_even_diagonal, chosen, rng) if even else partial(place, chosen, rng, constraints)

    def fits(objects: Sequence[Placed]) -> bool:
        first, second, *others = objects
        room = _both_show(first, second) if close else apart([first, second])
        if not (room and apart([first, *others]) and apart([second, *others])):
            return False
        boxes = [placed.box for placed in objects]
        return _is_even(objects) if even else all(satisfied(boxes, constraint) for constraint in constraints)

    objects = drawn() if cells is None else arranged(drawn, cells, fits)
    missing = int(rng.integers(2)) if alone else None
    grounds = list(BACKGROUNDS)
    return Scene(objects, grounds[rng.integers(len(grounds))], int(rng.integers(1 << 31))), missing


def _even_diagonal(names: list[str], rng: np.random.Generator) -> tuple[Placed, ...]:
    """Objects of which the second stands diagonally from the first, within EVEN degrees."""
    constraint = Constraint(0, DIAGONAL[rng.integers(len(DIAGONAL))], 1)
    while not _is_even(objects := place(names, rng, [constraint])):
        continue
    return objects


def _is_even(objects: Sequence[Placed]) -> bool:
    """Whether the first two stand so diagonally that both axes claim them."""
    first, second = objects[:2]
    angle = math.degrees(math.atan2(abs(first.y - second.y), abs(first.x - second.x)))
    return abs(angle - 45) <= EVEN and len(basic_relations(first.box, second.box)) == 2


def _both_show(first: Placed, second: Placed) -> bool:
    """Whether neither of two sprites that may overlap hides the other."""
    return math.hypot(first.x - second.x, first.y - second.y) >= CLOSE * (first.size + second.size) / 2


def _pixels(placed: Placed, side: int) -> Box:
    return tuple(share * side for share in placed.box)
