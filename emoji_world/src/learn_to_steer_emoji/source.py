"""The sources ``emoji``, ``emoji-clean``, ``emoji-cluttered`` and ``emoji-tidy``: rendered scenes of seen objects.

All relations are equally frequent. Clean scenes show the two objects alone, cluttered ones always show others too
(paper, Table 4). Tidy scenes lie on the grid of the tokens of ``flux:emoji``, like those that this model is trained on.
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
CROWDED = 0.4  # share of images with further objects, as prompts with several relations have
EVEN = 15.0  # degrees from the exact diagonal up to which neither axis is the clear one


@dataclass(frozen=True)
class RenderedScenes:
    """A source of labelled images.

    Attributes:
        NOTE: Where the images come from, and their licence.
        crowded: Share of the images that show one to three further objects.
        cells: Makes layouts tidy, on a grid of this many cells a side (see ``tidy``). None: sprites of any size and
            angle, anywhere.
    """

    NOTE: str = LICENSE_NOTE
    crowded: float = CROWDED
    cells: int | None = None

    def images(self, request: SourceRequest) -> LabelledImages:
        """Draw labelled images, one of every relation in turn.

        The neutral relation "is" has three kinds of images, also in turn. Either its two objects overlap or nearly
        touch without a clear axis. Or one of the two is not in the image: a relation needs both, and steering must not
        remove one to satisfy it. Or they stand diagonally, except where the four diagonals are relations of their own.

        Of every ten images of a relation, one belongs to the validation split and one to the test split. An image
        depends on the seed and its own index alone.

        Args:
            request: Which images are wanted. It must have no ``data``, since nothing is read, and no ``exclude``, since
                the split of the objects is fixed: all images show seen objects only.

        Returns:
            The images. Their pixels are rendered when they are needed. None is skipped.

        Raises:
            DataError: At once, if the request has ``data`` or ``exclude``.
        """
        if request.data is not None:
            raise DataError(
                f"the emoji sources render their images and read no data, got {request.data}; leave out --data"
            )
        if request.exclude:
            raise DataError(
                "the emoji sources have a fixed split of objects; --exclude-benchmarks is for sources of real images"
            )
        images = _draw(request.limit, request.seed, request.resolution, request.diagonals, self.crowded, self.cells)
        return LabelledImages(images)


EMOJI = RenderedScenes()
CLEAN = RenderedScenes(f"{LICENSE_NOTE}; nothing else in the picture", crowded=0.0)
CLUTTERED = RenderedScenes(f"{LICENSE_NOTE}; further objects in every picture", crowded=1.0)
TIDY = RenderedScenes(f"{LICENSE_NOTE}; upright, two sizes, on a grid", cells=CELLS)


def _draw(
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
            pixels=_DeferredRendering(replace(scene, objects=tuple(shown)), side),
            others=tuple(other.name for other in others),
        )


@dataclass(frozen=True)
class _DeferredRendering:
    """Renders an image when it is called."""

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
    """Draw a scene whose first object is ``predicate`` of its second, and the index of one to leave out, if any."""
    rng = np.random.default_rng(seed)
    names = object_names("seen")
    extra = int(rng.integers(1, 4)) if rng.random() < crowded else 0
    scene_names = [names[i] for i in rng.choice(len(names), 2 + extra, replace=False)]
    alone = predicate == NEUTRAL and turn % 3 == 1
    even = predicate == NEUTRAL and turn % 3 == 2 and not diagonals
    close = predicate == NEUTRAL and not alone and not even
    constraints = [] if alone else [Constraint(0, predicate, 1)]
    layout = partial(_even_diagonal, scene_names, rng) if even else partial(place, scene_names, rng, constraints)

    def fits(objects: Sequence[Placed]) -> bool:
        first, second, *others = objects
        room = _both_show(first, second) if close else apart([first, second])
        if not (room and apart([first, *others]) and apart([second, *others])):
            return False
        boxes = [placed.box for placed in objects]
        return _is_even(objects) if even else all(satisfied(boxes, constraint) for constraint in constraints)

    objects = layout() if cells is None else arranged(layout, cells, fits)
    missing = int(rng.integers(2)) if alone else None
    grounds = list(BACKGROUNDS)
    return Scene(objects, grounds[rng.integers(len(grounds))], int(rng.integers(1 << 31))), missing


def _even_diagonal(names: list[str], rng: np.random.Generator) -> tuple[Placed, ...]:
    """Place objects so that the first two are diagonal to each other, within EVEN degrees."""
    constraint = Constraint(0, DIAGONAL[rng.integers(len(DIAGONAL))], 1)
    while not _is_even(objects := place(names, rng, [constraint])):
        continue
    return objects


def _is_even(objects: Sequence[Placed]) -> bool:
    """Return whether the first two objects are so close to the diagonal that a relation of either axis holds."""
    first, second = objects[:2]
    angle = math.degrees(math.atan2(abs(first.y - second.y), abs(first.x - second.x)))
    return abs(angle - 45) <= EVEN and len(basic_relations(first.box, second.box)) == 2


def _both_show(first: Placed, second: Placed) -> bool:
    """Return whether neither of two sprites that may overlap hides the other."""
    return math.hypot(first.x - second.x, first.y - second.y) >= CLOSE * (first.size + second.size) / 2


def _pixels(placed: Placed, side: int) -> Box:
    return tuple(share * side for share in placed.box)
