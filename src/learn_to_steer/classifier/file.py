"""The classifier's file: fp16 weights, and a header with everything that gives them meaning."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.errors import DataError

FORMAT = "learn-to-steer/relation-classifier/1"
FILE = "relation_classifier.safetensors"


def save(model: RelationClassifier, folder: str | Path, metrics: dict[str, Any] | None = None) -> Path:
    """Write ``relation_classifier.safetensors`` with config (layout, classes, levels) and metrics in its header."""
    header = {"format": FORMAT, "config": json.dumps(asdict(model.config)), "metrics": json.dumps(metrics or {})}
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # The sinusoid tables are rebuilt from the config.
    state = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items() if not k.endswith(".pe")}
    storage.save_tensors(path, state, header)
    return path


def load(folder: str | Path) -> RelationClassifier:
    """Read a classifier folder (or file), ready for use in fp32 eval mode; DataError if it is not one."""
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    state, header = storage.load_tensors(path)
    if header.get("format") != FORMAT:
        raise DataError(f"{path} is not a relation classifier of this version (format {header.get('format')!r})")
    raw: dict[str, Any] = json.loads(header["config"])
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    config = ClassifierConfig(**values)
    model = RelationClassifier(config)
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    lost = [key for key in missing if not key.endswith(".pe")]
    if lost or unexpected:
        raise DataError(f"{path} does not fit its own config (missing {lost[:2]}, unexpected {unexpected[:2]})")
    return model.eval().requires_grad_(False)
