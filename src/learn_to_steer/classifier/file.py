"""The file of a classifier: fp16 weights, and a header with config and metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from learn_to_steer import storage
from learn_to_steer.classifier.card import model_card
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout

FORMAT = "learn-to-steer/relation-classifier/1"
FILE = "relation_classifier.safetensors"
CARD = "README.md"


def save(
    model: RelationClassifier,
    folder: str | Path,
    metrics: dict[str, Any] | None = None,
    *,
    half: bool = True,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``relation_classifier.safetensors`` and a model card, README.md.

    Args:
        model: The classifier. Its config (layout, classes, levels) goes into the header.
        folder: The folder, which is made if need be.
        metrics: What was measured, for header and card.
        half: Whether to store weights in fp16 instead of fp32.
        data: The training data, for the card; see ``card.model_card``.

    Returns:
        The path of the weights.
    """
    header = {"format": FORMAT, "config": json.dumps(asdict(model.config)), "metrics": json.dumps(metrics or {})}
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # The sinusoid tables are rebuilt from the config.
    kept = torch.float16 if half else torch.float32
    state = {k: v.detach().to("cpu", kept).contiguous() for k, v in model.state_dict().items() if not k.endswith(".pe")}
    storage.save_tensors(path, state, header)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    storage.write_atomic(path.parent / CARD, model_card(model.config, metrics or {}, data or {}, parameters))
    return path


def load(source: str | Path, revision: str | None = None) -> RelationClassifier:
    """Read a classifier, in fp32 and eval mode, without gradients of its weights.

    Args:
        source: Its folder or file, or a hub id ("owner/name").
        revision: Branch, tag or commit of a hub id.

    Raises:
        DataError: There is none, or the file is broken.
    """
    path = Path(source).expanduser()
    if not path.exists() and isinstance(source, str) and storage.is_hub_id(source):
        path = _download(source, revision)
    path = path / FILE if path.is_dir() else path
    state, header = storage.load_tensors(path)
    if header.get("format") != FORMAT:
        raise DataError(f"{path} is not a relation classifier of this version (format {header.get('format')!r})")
    try:
        raw: dict[str, Any] = json.loads(header["config"])
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        Layout.from_dict(values["layout"])
        config = ClassifierConfig(**values)
        if not (config.levels or config.steps):
            raise ValueError("neither the levels nor the steps that it was trained at are there")
        model = RelationClassifier(config)
        missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit its own config ({type(error).__name__}: {reason})") from error
    lost = [key for key in missing if not key.endswith(".pe")]
    if lost or unexpected:
        raise DataError(f"{path} does not fit its own config (missing {lost[:2]}, unexpected {unexpected[:2]})")
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path} is damaged ({broken[0]} holds numbers that are not finite); get or train it again")
    return model.eval().requires_grad_(False)


def push_to_hub(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
    license: str | None = None,
) -> str:
    """Upload a classifier to the hub.

    Args:
        folder: The folder of the classifier.
        repository: A hub id ("owner/name"); the repository is made if need be.
        private: Whether a new repository is private.
        token: Of the hub; None: the one that is logged in.
        message: Of the commit.
        license: Written into the model card first: an identifier that the hub knows, such as "apache-2.0".

    Returns:
        The address of the repository.

    Raises:
        DataError: ``folder`` holds no classifier, or the hub refuses.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the folder of a classifier, as 'train' leaves it")
    load(folder)
    if license is not None:
        _set_license(folder, license)
    api = HfApi(token=token)
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[FILE, CARD, "metrics.json"],
            commit_message=message or "Upload a relation classifier",
        )
    except Exception as error:  # a network can fail in any way
        raise DataError(f"the hub did not take {folder} as {repository}: {' '.join(str(error).split())}") from error
    return str(made)


def _set_license(folder: Path, license: str) -> None:
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise DataError(f"{license!r} is no licence identifier; such are apache-2.0, mit and cc-by-4.0")
    page = folder / CARD
    try:
        text = ModelCard(page.read_text(encoding="utf-8") if page.is_file() else "---\n---\n# Relation classifier\n")
    except (ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{page} is no model card whose licence can be set ({reason}); mend or remove it") from error
    text.data["license"] = license
    storage.write_atomic(page, str(text))


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repository, FILE, revision=revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"no classifier at {repository}: neither a folder here nor found on the hub ({reason})"
        ) from error
