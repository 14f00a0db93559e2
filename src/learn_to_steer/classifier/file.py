"""The file of a classifier: a safetensors file with the weights, and config and metrics in its header."""

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
        model: The classifier. Its config is written into the header.
        folder: The folder to write to; it is created if necessary.
        metrics: The metrics, for header and card.
        half: Whether to store the weights in fp16 instead of fp32.
        data: Facts about the training data, for the card; see ``card.model_card``.

    Returns:
        The path of the weights file.
    """
    header = {"format": FORMAT, "config": json.dumps(asdict(model.config)), "metrics": json.dumps(metrics or {})}
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # The sinusoid tables are rebuilt from the config.
    kept = torch.float16 if half else torch.float32
    state = {k: v.detach().to("cpu", kept).contiguous() for k, v in model.state_dict().items() if not k.endswith(".pe")}
    storage.save_tensors(path, state, header, digest=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    storage.write_atomic(path.parent / CARD, model_card(model.config, metrics or {}, data or {}, parameters))
    return path


def load(source: str | Path, revision: str | None = None) -> RelationClassifier:
    """Load a classifier in fp32 and eval mode. Its weights do not require gradients.

    Args:
        source: The folder or file of the classifier, or a hub id ("owner/name").
        revision: Branch, tag or commit on the hub.

    Raises:
        DataError: There is no classifier at ``source``, or its file is broken.
    """
    path = Path(source).expanduser()
    if not path.exists() and isinstance(source, str) and storage.is_hub_id(source):
        path = _download(source, revision)
    path = path / FILE if path.is_dir() else path
    state, header = storage.load_tensors(path)
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a relation classifier that this version reads (format {header.get('format')!r})"
        )
    try:
        raw: dict[str, Any] = json.loads(header["config"])
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        Layout.from_dict(values["layout"])
        config = ClassifierConfig(**values)
        if not (config.levels or config.steps):
            raise ValueError("both the levels and the steps that it was trained at are missing")
        model = RelationClassifier(config)
        missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit its own config ({type(error).__name__}: {reason})") from error
    absent = [key for key in missing if not key.endswith(".pe")]
    if absent or unexpected:
        raise DataError(f"{path} does not fit its own config (missing {absent[:2]}, unexpected {unexpected[:2]})")
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path} is damaged ({broken[0]} has values that are not finite); download or train it again")
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
        repository: A hub id ("owner/name"); the repository is created if necessary.
        private: Whether the repository is created as a private one.
        token: The access token of the hub; None: the one of the logged-in user.
        message: The commit message.
        license: An identifier that the hub knows, such as "apache-2.0"; it is written into the model card first.

    Returns:
        The URL of the repository.

    Raises:
        DataError: ``folder`` has no classifier, ``license`` is no identifier, or the upload fails.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of a classifier, as written by 'train'")
    load(folder)
    if license is not None:
        _set_license(folder, license)
    api = HfApi(token=token)
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[FILE, CARD, "metrics.json"],
            commit_message=message or "Upload a relation classifier",
        )
    except Exception as error:  # a network can fail in any way
        raise DataError(f"the upload of {folder} to {repository} failed: {' '.join(str(error).split())}") from error
    return str(url)


def _set_license(folder: Path, license: str) -> None:
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise DataError(f"{license!r} is not a licence identifier; give one such as apache-2.0, mit or cc-by-4.0")
    page = folder / CARD
    try:
        text = ModelCard(page.read_text(encoding="utf-8") if page.is_file() else "---\n---\n# Relation classifier\n")
    except (ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the licence cannot be written into {page} ({reason}); correct or remove the file") from error
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
            f"there is no classifier at {repository}: it is no local folder, and the hub gave: {reason}"
        ) from error
