"""Reads the authors' ``.pth`` checkpoints (plain dict of tensors, dicts, lists, numbers), safely.

*Source:* the file's layout as described in official_implementation, 2.1-2.3. Class order, sizes and trained
steps come from the file. It does not record which model it was trained on, so the caller says so by giving
the layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout

NAMES = {
    "to the left of": "left of",
    "to the right of": "right of",
    "above_left": "above left of",
    "above_right": "above right of",
    "below_left": "below left of",
    "below_right": "below right of",
}
BUFFER = 1368  # what older files that lack input_channels were made with


def read_official(path: str | Path, layout: Layout | None = None) -> RelationClassifier:
    """The classifier in ``path``, in eval mode; with ``layout`` it refuses maps of any other layout.

    Raises DataError, in one line, for a missing, corrupt or foreign file.
    """
    try:
        outer = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except Exception as error:
        raise DataError(f"{path} is not a checkpoint of plain tensors and numbers, so it is not opened") from error
    try:
        config = _config(outer, layout)
        state = {k.removeprefix("module."): v for k, v in outer["model_state_dict"].items()}
        model = RelationClassifier(config)
        model.load_state_dict(state)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a relation classifier checkpoint of the authors: {reason}") from error
    return model.eval().requires_grad_(False)


def _config(outer: dict[str, Any], layout: Layout | None) -> ClassifierConfig:
    model, training = outer["config"], outer.get("training_config") or {}
    extractor, head = model["extractor"], model["classifier"]
    names = {int(index): name for index, name in outer["idx_to_rel_name"].items()}
    clock = extractor["timestep_embedding"]
    return ClassifierConfig(
        classes=tuple(NAMES.get(names[i], names[i]) for i in sorted(names)),
        channels=int(outer.get("input_channels", BUFFER)),
        times=int(model["num_timesteps"]),
        steps=tuple(sorted(training["timesteps"]))
        if training.get("timesteps")
        else tuple(range(model["num_timesteps"])),
        side=int(model["map_size"]),
        width=int(model["d_model"]),
        layers=int(extractor["num_layers"]),
        heads=int(extractor["nhead"]),
        hidden=int(extractor["dim_feedforward"]),
        query_heads=int(extractor["layer_attn_nheads"]),
        head_layers=int(head["num_layers"]),
        head_heads=int(head["nhead"]),
        head_hidden=int(head["dim_feedforward"]),
        time_width=int(head["timestep_embedding_dim"]),
        dropout=float(extractor["dropout"]),
        inject=clock["mode"] if clock["enable"] else "none",
        extractor="mean" if extractor.get("use_mean") else "attention",
        layout=layout.as_dict() if layout else {},
    )
