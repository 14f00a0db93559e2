"""Reads the authors' checkpoints: ``.pth`` files of tensors, dicts, lists and numbers. No code in them is run.

The order of the classes, the sizes and the trained steps come from the file. It does not record which model it was
trained on, so the caller gives the layout of that model's maps.

Source:
    The checkpoints that the authors of the paper (arXiv 2509.02295) publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from learn_to_steer import storage
from learn_to_steer.classifier.file import check_weights, save
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.maps import Layout
from learn_to_steer.plain_text import shown
from learn_to_steer.storage import check_regular

NAMES = {
    "to the left of": "left of",
    "to the right of": "right of",
    "above_left": "above left of",
    "above_right": "above right of",
    "below_left": "below left of",
    "below_right": "below right of",
}
PUBLISHED_WIDTH = 256  # of the networks that the authors publish
FLUX_HIDDEN = 512  # hidden width of those for FLUX
FEW_STEPS = 4  # with at most so many steps, the hidden width does not tell the model
MOST_TIMES = 10_000
DEFAULT_CHANNELS = 1368  # of older files, which have no input_channels


def import_official(
    path: str | Path,
    layout: Layout,
    folder: str | Path,
    steps: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Convert a checkpoint of the authors to the format of this library, in fp32.

    As in the authors' code, resized maps are renormalised, but not where all maps of the model have the size that the
    classifier reads (FLUX at 256 px).

    Args:
        path: The checkpoint.
        layout: The layout of the maps of its model.
        folder: The folder to write to.
        steps: The number of denoising steps of its model; None if it is not known.
        data: Facts about the training data, for the model card; see ``card.model_card``.

    Returns:
        The path of the new file.

    Raises:
        DataError: As in ``read_official``, or the checkpoint reads fewer maps or is for another kind of model.
    """
    storage.check_folder(folder)
    outer = _load(path)
    model = _build(path, outer, None)
    size = (outer.get("training_config") or {}).get("orig_map_size")
    native = {layer.level for layer in layout.layers} == {0} and size == model.config.side
    kept = replace(layout, side=model.config.side, renormalise=not native)
    if layout.channels > model.config.channels:
        raise DataError(
            f"{path} reads up to {model.config.channels} attention maps, but this model gives {layout.channels}; "
            "give the model that it was trained on with --model"
        )
    _require_same_kind(path, outer, model.config, layout.family, steps)
    model.config = replace(model.config, layout=kept.as_dict())
    return save(model, folder, {"imported_from": Path(path).name}, half=False, data=data)


def _require_same_kind(path: str | Path, outer: Any, config: ClassifierConfig, family: str, steps: int | None) -> None:
    """Raise DataError for a checkpoint of another kind of model, or whose parts contradict each other."""
    problem = ""
    if steps is not None and config.times != steps:
        problem = f"it was trained on {config.times} denoising steps, but this model uses {steps}"
    elif (
        config.width == PUBLISHED_WIDTH
        and (config.hidden == FLUX_HIDDEN) != (family == "flux")
        and config.times > FEW_STEPS
    ):
        problem = f"its network has the size of one for {'FLUX' if family != 'flux' else 'Stable Diffusion'}"
    elif unknown := [name for name in config.classes if name not in (*BASIC, *DIAGONAL, NEUTRAL)]:
        problem = f"it has classes that are not relations: {', '.join(unknown)}"
    elif any(outer["idx_to_rel_name"].get(index, name) != name for name, index in _labels(path, outer)):
        problem = "its two tables of relations contradict each other"
    if problem:
        raise DataError(f"{path} is not for this model: {problem}; give the model that it was trained on with --model")


def _labels(path: str | Path, outer: Any) -> list[tuple[str, int]]:
    """Name and index of each relation, from the second of the two tables."""
    labels = outer.get("rel_name_to_idx", {})
    if labels is None:
        return []
    if not isinstance(labels, dict) or {(type(name), type(index)) for name, index in labels.items()} - {(str, int)}:
        raise DataError(f"{path} is not a relation classifier checkpoint of the authors: rel_name_to_idx is no table")
    return list(labels.items())


def read_official(path: str | Path, layout: Layout | None = None) -> RelationClassifier:
    """Load a checkpoint of the authors.

    Args:
        path: The checkpoint.
        layout: The layout of the maps of its model, which the classifier then requires; None: it is not checked.

    Returns:
        The classifier, in eval mode.

    Raises:
        DataError: The file is missing, broken, or not such a checkpoint.
    """
    return _build(path, _load(path), layout)


def _load(path: str | Path) -> Any:
    check_regular(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except Exception as error:
        raise DataError(
            f"{path} is not a checkpoint of plain tensors and numbers, so it is not loaded; name a .pth file that the "
            "authors published"
        ) from error


def _build(path: str | Path, outer: Any, layout: Layout | None) -> RelationClassifier:
    try:
        config = _config(outer, layout)
        state = {k.removeprefix("module."): v for k, v in outer["model_state_dict"].items()}
        with torch.device("meta"):  # needs no memory, whatever sizes the config names
            expected = RelationClassifier(config).state_dict()
        check_weights(path, state, expected)
        model = RelationClassifier(config)
        sinusoids = {k: v.clone() for k, v in model.state_dict().items() if k.endswith(".pe")}
        model.load_state_dict(state)
        for name, table in sinusoids.items():
            if not torch.allclose(model.state_dict()[name], table, atol=1e-5):
                raise ValueError(f"{name} is not the table of sinusoids that the authors use")
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, ArithmeticError, DataError) as error:
        reason = "it lacks " * isinstance(error, KeyError) + " ".join(str(error).removeprefix(f"{path} ").split())[:200]
        raise DataError(f"{path} is not a relation classifier checkpoint of the authors: {reason}") from error
    return model.eval().requires_grad_(False)


def _config(outer: Any, layout: Layout | None) -> ClassifierConfig:
    if not isinstance(outer, dict):
        raise ValueError(f"it holds {shown(outer)}")
    model, training = outer["config"], outer.get("training_config") or {}
    extractor, head = model["extractor"], model["classifier"]
    names = {int(index): name for index, name in outer["idx_to_rel_name"].items()}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"its relations have the indices {shown(sorted(names))}")
    embedding = extractor["timestep_embedding"]
    times = _integer(model["num_timesteps"])
    if times > MOST_TIMES:
        raise ValueError(f"num_timesteps is {times}, above {MOST_TIMES}")
    trained = training.get("timesteps") or range(times)
    return ClassifierConfig(
        classes=tuple(NAMES.get(names[i], names[i]) for i in sorted(names)),
        channels=_integer(outer.get("input_channels", DEFAULT_CHANNELS)),
        times=times,
        steps=tuple(sorted(trained)),
        side=_integer(model["map_size"]),
        width=_integer(model["d_model"]),
        layers=_integer(extractor["num_layers"]),
        heads=_integer(extractor["nhead"]),
        hidden=_integer(extractor["dim_feedforward"]),
        query_heads=_integer(extractor["layer_attn_nheads"]),
        head_layers=_integer(head["num_layers"]),
        head_heads=_integer(head["nhead"]),
        head_hidden=_integer(head["dim_feedforward"]),
        time_width=_integer(head["timestep_embedding_dim"]),
        dropout=float(extractor["dropout"]),
        inject=embedding["mode"] if embedding["enable"] else "none",
        extractor="mean" if extractor.get("use_mean") else "attention",
        layout=layout.as_dict() if layout else {},
    )


def _integer(value: Any) -> int:
    """A number of a checkpoint, which must be a whole one."""
    if isinstance(value, bool | str) or int(value) != value:
        raise ValueError(f"{shown(value)} is no integer")
    return int(value)
