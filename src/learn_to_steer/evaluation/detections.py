"""What a detector saw, kept by the picture's and the detector's identity, so that rules are tried in seconds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.folders import Placed
from learn_to_steer.evaluation.score import Judge, asked
from learn_to_steer.geometry import Detection, iou

BATCH = 16
ENOUGH = 8  # pictures in which a working detector sees something at least once


def detect_all(
    judge: Judge, placed: Sequence[Placed], cache: Path, on_progress: Callable[[int, int], None] | None = None
) -> list[tuple[list[Detection], tuple[int, int]]]:
    """Detections and size (width, height) of every picture, those in ``cache`` (JSON lines) without looking again.

    Raises DataError for a picture that cannot be read, and for a detector that is broken: whose boxes or scores are
    not finite, that contradicts itself, or that sees nothing in any of the pictures.
    """
    keys = [_key(judge, item) for item in placed]
    known = {row["key"]: row for row in storage.read_jsonl(cache)} if cache.exists() else {}
    missing = [n for n, key in enumerate(keys) if key not in known]
    if missing:
        first = placed[missing[0]]
        require_same_twice(judge, open_picture(first[2]), first[0], str(first[2]))
    for start in range(0, len(missing), BATCH):
        if on_progress:
            on_progress(len(placed) - len(missing) + start, len(placed))
        part = missing[start : start + BATCH]
        pictures = [open_picture(placed[n][2]) for n in part]
        found = judge.look(pictures, [placed[n][0] for n in part])
        for n, picture, seen in zip(part, pictures, found, strict=True):
            require_sound(seen)
            row = {"key": keys[n], "size": picture.size, "boxes": [_stored(one) for one in seen]}
            storage.append_jsonl(cache, row)
            known[keys[n]] = row
    if on_progress:
        on_progress(len(placed), len(placed))
    rows = [known[key] for key in keys]
    require_seeing(judge, [row["boxes"] for row in rows], cache)
    return [([_read(box) for box in row["boxes"]], (row["size"][0], row["size"][1])) for row in rows]


def _key(judge: Judge, item: Placed) -> str:
    """Picture, detector and, for one that is told what to look for, the names."""
    wanted = asked(item[0])
    told = [*wanted.names] if judge.vocabulary is None else []
    identity = [dict(judge.detector.identity), told, wanted.colors]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{storage.sha256(item[2])[:24]}-{digest[:12]}"


def open_picture(path: Path) -> Image.Image:
    """The picture, upright, RGB; DataError when it cannot be read."""
    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"the picture {path} cannot be read ({error}); make it again") from error


def require_same_twice(
    judge: Judge, picture: Image.Image, prompt: BenchmarkPrompt, name: str = "its first picture"
) -> None:
    """Raise DataError unless the detector sees the same in ``picture`` alone and in company."""
    alone = judge.look([picture], [prompt])[0]
    for again in judge.look([picture, picture], [prompt] * 2):
        if len(again) != len(alone) or not all(any(map(partial(_alike, one), again)) for one in alone):
            raise DataError(
                f"the detector {judge.detector.name} contradicts itself on {name}: {len(alone)} objects alone, "
                f"{len(again)} in a batch; its installation is broken, so nothing is scored"
            )


def require_seeing(judge: Judge, boxes: Sequence[Sequence[Any]], cache: Path | None = None) -> None:
    """Raise DataError when there is nothing at all in the ``boxes`` of many pictures."""
    if len(boxes) >= ENOUGH and not any(boxes):
        raise DataError(
            f"the detector {judge.detector.name} sees nothing in any of {len(boxes)} pictures; its weights or its "
            f"installation are broken ({dict(judge.detector.identity)}), nothing is scored; mend it"
            + (f", remove {cache}" if cache else ", or look at the pictures: perhaps the model draws nothing")
        )


def require_sound(found: Sequence[Detection]) -> None:
    """Raise DataError for a score or an edge that is no number."""
    for one in found:
        numbers = (one.score, *one.box)
        if not all(math.isfinite(float(number)) for number in numbers) or not 0 <= one.score <= 1:
            raise DataError(f"the detector reports {one}: a score or an edge that is no number; nothing is scored")


def _alike(one: Detection, other: Detection) -> bool:
    """Whether two detections are the same but for rounding, wherever they stand in their lists."""
    return one.name == other.name and abs(one.score - other.score) < 0.01 and iou(one.box, other.box) > 0.9


def _stored(one: Detection) -> dict[str, Any]:
    color = {"color": one.color} if one.color else {}
    return {"name": one.name, "score": float(one.score), "box": [float(edge) for edge in one.box], **color}


def _read(stored: dict[str, Any]) -> Detection:
    left, top, right, bottom = stored["box"]
    return Detection(stored["name"], stored["score"], (left, top, right, bottom), stored.get("color"))
