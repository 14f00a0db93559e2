"""Attention maps that an evaluation kept: a file for each image, and their drawing on the report's page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.report.attention_maps import ObjectMaps, heatmap
from learn_to_steer.report.html_pages import brief, inline_image
from learn_to_steer.report.layout import row

MAPS = "maps"
TILE = 64  # side of a drawn map in pixels
GAP = 4  # pixels between two maps


def maps_path(folder: Path, image: str) -> Path:
    """Where the maps of an image are, by its id (``result_rows.image_id``)."""
    return folder / MAPS / f"{image}.safetensors"


def write_maps(folder: Path, image: str, maps: ObjectMaps, number: int) -> None:
    """Write the maps of one image.

    Args:
        folder: The folder of the evaluation.
        image: The id of the image.
        maps: Maps of some images of the same prompt.
        number: Which of them it is.
    """
    header = {"objects": json.dumps(maps.objects), "steps": json.dumps(maps.steps)}
    storage.save_tensors(maps_path(folder, image), {"maps": torch.from_numpy(maps.values[number])}, header, digest=True)


def draw_strips(folder: Path, image: str) -> list[dict[str, Any]]:
    """Draw the maps of one image as strips, a map for each kept step. All share one scale of colours.

    Args:
        folder: The folder of the evaluation.
        image: The id of the image.

    Returns:
        For each object its ``name``, the ``steps`` counted from 1, and the strip as a data address (``source``). Empty
        if no maps were kept.

    Raises:
        DataError: The file is damaged.
    """
    path = maps_path(folder, image)
    if not path.is_file():
        return []
    tensors, header = storage.load_tensors(path)
    try:
        objects, steps = json.loads(header["objects"]), [int(step) + 1 for step in json.loads(header["steps"])]
        values = tensors["maps"].float().numpy()
        if values.ndim != 4 or values.shape[:2] != (len(steps), len(objects)) or not np.isfinite(values).all():
            raise ValueError(f"it holds {values.shape}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no attention maps ({error}); delete it") from error
    low, high = float(values.min()), float(values.max())
    shades = (values - low) / max(high - low, 1e-12)
    strips = []
    for number, name in enumerate(objects):
        tiles = [heatmap(shades[step, number], (TILE, TILE)) for step in range(len(steps))]
        strip = row(tiles, gap=GAP)
        source = inline_image(strip, side=strip.width)
        strips.append({"name": brief(name, 60), "steps": steps, "source": source, "size": strip.size})
    return strips
