"""Draws labelled images from candidates: balanced over the relations, and split by image."""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL, Box
from learn_to_steer.image_files import GREY, image_size, read_image
from learn_to_steer.sources._annotations import AnnotatedImage
from learn_to_steer.sources._candidates import Candidate, NameFilter, PairRules, pair_candidates
from learn_to_steer.sources.base import SPLITS, LabelledImage, LabelledImages, SkipLog, SourceRequest, Split
from learn_to_steer.storage import sha256

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SHORT = "class: fewer pictures than its share of the limit"

Square = tuple[int, int, int, int]
Listed = TypeVar("Listed", AnnotatedImage, Candidate)


def images_from_boxes(
    source: str, annotated: Iterable[AnnotatedImage], rules: PairRules, request: SourceRequest, skipped: SkipLog
) -> LabelledImages:
    """Return labelled images, drawn from annotated images.

    Args:
        source: The name of the source, a prefix of the ids.
        annotated: The annotated images.
        rules: Which pairs of boxes become candidates.
        request: Which images are wanted.
        skipped: The log, which becomes the log of the result.
    """
    names = NameFilter(request.exclude)
    offers = (
        list(pair_candidates(image, rules, names, request.diagonals, skipped)) for image in existing(annotated, skipped)
    )
    predicates = (*BASIC, *(DIAGONAL if request.diagonals else ()), NEUTRAL)
    return LabelledImages(sample(source, offers, predicates, request, skipped), skipped)


def sample(
    source: str,
    offers: Iterable[Sequence[Candidate]],
    predicates: Sequence[str],
    request: SourceRequest,
    skipped: SkipLog,
) -> Iterator[LabelledImage]:
    """Yield at most one candidate per image, for one predicate after the other, until the limit is reached.

    An image is assigned to that of its predicates which has the fewest images so far. If a predicate has too few
    images, the others do not replace them. The split of an image depends only on its id and the seed: one in ten is
    "val", and another one "test". One turn in ten prefers "val" and one "test", as long as there are such images. Files
    that cannot be decoded, and copies of earlier ones, are skipped.

    Args:
        source: The name of the source, a prefix of the ids.
        offers: The candidates of each image.
        predicates: The relations, in the order of their turns.
        request: Limit, seed and resolution.
        skipped: The log.
    """
    pools: dict[tuple[str, Split], list[Candidate]] = defaultdict(list)
    for offered in offers:
        if not offered:
            continue
        split = _split(offered[0].id, request.seed)
        rng = random.Random(_number(offered[0].id, request.seed, "pair"))
        rarest = min({one.predicate for one in offered}, key=lambda p: (len(pools[p, split]), predicates.index(p)))
        fitting = [one for one in offered if one.predicate == rarest]
        pools[rarest, split].append(rng.choice([one for one in fitting if one.annotated] or fitting))
    for pool in pools.values():
        pool.sort(key=lambda one: _number(one.id, request.seed, "order"))
    seen: set[str] = set()
    for index in range(request.limit):
        if not any(pools.values()):  # so that a limit far above the number of images takes no time
            for position, predicate in enumerate(predicates):
                first = index + (position - index) % len(predicates)
                left = -(-(request.limit - first) // len(predicates))
                if left > 0:
                    skipped.add(SHORT, predicate, left)
            return
        predicate, turn = predicates[index % len(predicates)], index // len(predicates)
        preferred: Split = "val" if turn % 10 == 1 else "test" if turn % 10 == 2 else "train"
        for split in (preferred, *(other for other in SPLITS if other != preferred)):
            image = _next(source, pools[predicate, split], split, request.resolution, seen, skipped)
            if image is not None:
                yield image
                break
        else:
            skipped.add(SHORT, predicate)


def existing(listed: Iterable[Listed], skipped: SkipLog) -> Iterator[Listed]:
    """Yield the entries whose image file exists and has not occurred before; others are logged as skipped."""
    seen: set[str] = set()
    for entry in listed:
        path = os.path.normpath(entry.path)
        if not os.path.isfile(path):
            reason = "not a regular file" if os.path.exists(path) else "file is missing"
            skipped.add(f"picture: {reason}", entry.path)
        elif path in seen:
            skipped.add("picture: listed twice", entry.id)
        else:
            seen.add(path)
            yield entry


def _next(
    source: str, pool: list[Candidate], split: Split, resolution: int, seen: set[str], skipped: SkipLog
) -> LabelledImage | None:
    """Pop candidates until one has a valid file, and return its image; None when ``pool`` is empty."""
    while pool:
        candidate = pool.pop()
        try:
            size, digest = image_size(candidate.path), _image_digest(candidate.path)
        except DataError as error:
            skipped.add("picture: cannot be decoded", error)
            continue
        if candidate.size is not None and size != candidate.size:
            skipped.add("picture: not of the annotated size", f"{candidate.path} is {size}, not {candidate.size}")
            continue
        if digest in seen:
            skipped.add("picture: copy of another one", candidate.path)
            continue
        seen.add(digest)
        boxes = candidate.boxes
        square = square_around(size, boxes or ((0, 0, *size),))  # without boxes nothing may be cut off: pad
        return LabelledImage(
            id=f"{source}-{candidate.id}",
            subject=candidate.subject,
            predicate=candidate.predicate,
            object=candidate.object,
            boxes=(box_in_crop(boxes[0], square, resolution), box_in_crop(boxes[1], square, resolution))
            if boxes
            else None,
            split=split,
            pixels=SquareCrop(candidate.path, square, resolution),
        )
    return None


def _split(id: str, seed: int) -> Split:
    tenth = _number(id, seed, "split") % 10
    return "val" if tenth == 0 else "test" if tenth == 1 else "train"


def _number(id: str, seed: int, purpose: str) -> int:
    """A number that depends only on the arguments, the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{purpose}|{id}".encode("utf-8", "surrogatepass")).digest()[:8])


def _image_digest(path: Path) -> str:
    """A hash of the file, after a check that the image can be read. Raises DataError."""
    read_image(path)
    return sha256(path)


def square_around(size: tuple[int, int], boxes: Sequence[Box]) -> Square:
    """Return the square to crop from an image; it contains all boxes.

    It is the centre crop, shifted only as far as the boxes require. If the boxes do not fit into it, it grows until
    they do, and extends beyond the image along the shorter axis, where it is to be padded.

    Args:
        size: Width and height of the image in pixels.
        boxes: Boxes (x0, y0, x1, y1) in pixels of the image.

    Returns:
        The square (x0, y0, x1, y1) in pixels of the image.
    """
    low = [math.floor(min(box[axis] for box in boxes)) for axis in (0, 1)]
    high = [math.ceil(max(box[axis + 2] for box in boxes)) for axis in (0, 1)]
    side = max(min(size), *(high[axis] - low[axis] for axis in (0, 1)))
    start = []
    for axis in (0, 1):
        centred = (size[axis] - side) // 2
        if side <= size[axis]:
            centred = min(max(centred, high[axis] - side, 0), low[axis], size[axis] - side)
        start.append(centred)
    return start[0], start[1], start[0] + side, start[1] + side


def box_in_crop(box: Box, square: Square, resolution: int) -> tuple[float, float, float, float]:
    """Return ``box`` in pixels of the crop ``square``, after this was resized to ``resolution`` pixels a side."""
    scale = resolution / (square[2] - square[0])
    x0, y0, x1, y1 = box
    return (x0 - square[0]) * scale, (y0 - square[1]) * scale, (x1 - square[0]) * scale, (y1 - square[1]) * scale


@dataclass(frozen=True)
class SquareCrop:
    """A square part of an image file; call it to read the file.

    The file is read as ``image_files`` says; what lies beyond the image is grey.
    """

    path: Path
    square: Square
    resolution: int

    def __call__(self) -> Float[Tensor, "3 resolution resolution"]:
        """Read the file and return the crop as RGB in [0, 1].

        Raises:
            DataError: The file can no longer be read.
        """
        import torch

        try:
            whole = read_image(self.path)
        except DataError as error:
            raise DataError(
                f"{self.path} can no longer be read ({error}); restore the file and collect again"
            ) from error
        x0, y0, x1, y1 = self.square
        crop = Image.new("RGB", (x1 - x0, y1 - y0), GREY)
        crop.paste(whole, (-x0, -y0))
        resized = crop.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()
