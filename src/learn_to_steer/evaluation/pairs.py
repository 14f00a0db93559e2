"""The pictures of two evaluations beside each other: how alike they are, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.detections import open_picture
from learn_to_steer.evaluation.folders import Placed, image_path
from learn_to_steer.evaluation.likeness import background, embedder
from learn_to_steer.statistics import clustered_interval, paired_interval

Row = Mapping[str, Any]
BATCH = 16


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
    shared = [(prompt.index, sample, file) for prompt, sample, file in placed if (prompt.index, sample) in theirs]
    embed = embedder(name, device)
    here, there, outside = [], [], []
    for start in range(0, len(shared), BATCH):  # a batch of pictures at a time, embeddings of all
        ours, bases = [], []
        for index, sample, file in shared[start : start + BATCH]:
            path = image_path(Path(folder), index, sample)
            if not path.is_file():
                raise DataError(f"{path} is not there; --similarity needs the folder that evaluate wrote")
            ours.append(open_picture(file))
            bases.append(open_picture(path))
            boxes = _boxes(mine[index, sample]), _boxes(theirs[index, sample])
            outside.append((background(ours[-1], bases[-1], *boxes), index))
        here.append(embed(ours).cpu())
        there.append(embed(bases).cpu())
    prompts = [index for index, _, _ in shared]
    found = {"embedder": name} | _similarity(torch.cat(here), torch.cat(there), prompts)
    kept = [(value, index) for value, index in outside if value is not None]
    if kept:
        differences, deviations, before = zip(*(value for value, _ in kept), strict=True)
        clusters = [index for _, index in kept]
        found["background"] = {
            "pictures": len(kept),
            "difference": _mean(differences, clusters),
            "deviation": list(paired_interval(deviations, before, clusters)),
            "deviation_there": sum(before) / len(before),
        }
    return found


def _similarity(here: torch.Tensor, there: torch.Tensor, prompts: Sequence[int]) -> dict[str, Any]:
    """Mean cosine of embeddings (pictures, channels) to their partners, and to partners of other prompts."""
    values = functional.cosine_similarity(here, there).tolist()
    # Cosines mean little alone: any two pictures of one world are alike to some degree.
    half = len(prompts) // 2
    turned = [*range(half, len(prompts)), *range(half)]
    strangers = [
        float(functional.cosine_similarity(here[n], there[other], dim=0))
        for n, other in enumerate(turned)
        if prompts[n] != prompts[other]
    ]
    mean = sum(strangers) / len(strangers) if strangers else None
    return {"similarity": _mean(values, prompts), "similarity_to_strangers": mean}


def _mean(values: Sequence[float], clusters: Sequence[int]) -> list[float]:
    low, high = clustered_interval(values, clusters)
    return [sum(values) / len(values), low, high]


def _boxes(row: Row) -> list[tuple[float, float, float, float]]:
    return [tuple(box["box"]) for box in row["boxes"]]
