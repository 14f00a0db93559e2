"""The pictures of two evaluations beside each other: how alike they are, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.detections import open_picture
from learn_to_steer.evaluation.folders import Placed, image_path
from learn_to_steer.evaluation.likeness import background, embedder, similarities
from learn_to_steer.statistics import clustered_interval, paired_interval

Row = Mapping[str, Any]


def alike(
    name: str, device: str, placed: Sequence[Placed], rows: Sequence[Row], folder: str, others: Sequence[Row]
) -> dict[str, Any]:
    """Similarity by the embedder ``name`` of ``placed`` (with their ``rows``) to the pictures in ``folder``.

    ``similarity`` is [mean, low, high], ``similarity_to_strangers`` the mean to pictures of other prompts.
    ``background`` has ``difference`` (mean absolute, outside all boxes), ``deviation`` here minus there (negative:
    dulled), each [mean, low, high], and ``deviation_there``. Raises DataError when ``folder`` has no pictures.
    """
    theirs = {(row["index"], row["sample"]): row for row in others}
    mine = {(row["index"], row["sample"]): row for row in rows}
    ours, bases, keys = [], [], []
    for prompt, sample, file in placed:
        path = image_path(Path(folder), prompt.index, sample)
        if (prompt.index, sample) not in theirs:
            continue
        if not path.is_file():
            raise DataError(f"{path} is not there; --similarity needs the folder that evaluate wrote")
        ours.append(open_picture(file))
        bases.append(open_picture(path))
        keys.append((prompt.index, sample))
    prompts = [index for index, _ in keys]
    embed = embedder(name, device)
    values = similarities(embed, ours, bases)
    found: dict[str, Any] = {"embedder": name, "similarity": _mean(values, prompts)}
    # Cosines mean little alone: any two pictures of one world are alike to some degree.
    turned = [*range(len(bases) // 2, len(bases)), *range(len(bases) // 2)]
    apart = [(n, other) for n, other in enumerate(turned) if prompts[n] != prompts[other]]
    strangers = similarities(embed, [ours[n] for n, _ in apart], [bases[other] for _, other in apart])
    found["similarity_to_strangers"] = sum(strangers) / len(strangers) if strangers else None
    outside = [
        (background(a, b, _boxes(mine[key]), _boxes(theirs[key])), key[0])
        for a, b, key in zip(ours, bases, keys, strict=True)
    ]
    kept = [(value, index) for value, index in outside if value is not None]
    if kept:
        differences, deviations, there = zip(*(value for value, _ in kept), strict=True)
        clusters = [index for _, index in kept]
        found["background"] = {
            "pictures": len(kept),
            "difference": _mean(differences, clusters),
            "deviation": list(paired_interval(deviations, there, clusters)),
            "deviation_there": sum(there) / len(there),
        }
    return found


def _mean(values: Sequence[float], clusters: Sequence[int]) -> list[float]:
    low, high = clustered_interval(values, clusters)
    return [sum(values) / len(values), low, high]


def _boxes(row: Row) -> list[tuple[float, float, float, float]]:
    return [tuple(box["box"]) for box in row["boxes"]]
