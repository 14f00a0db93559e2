"""The file of a classifier: a safetensors file with the weights, and config and metrics in its header."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learn_to_steer import storage
from learn_to_steer.classifier.card import model_card
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout
from learn_to_steer.plain_text import shown
from learn_to_steer.safe_parsing import parse_json

FORMAT = "learn-to-steer/relation-classifier/1"
FILE = "relation_classifier.safetensors"
CARD = "README.md"
AGAIN = "make or download the classifier again"
NEWER = {"trained_on": "{}", "temperatures": "[]"}  # fields that version 0.1 lacks, and what stands for no value
LARGEST = 2**30  # bytes; the authors' classifiers have 20 MB
WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    config = asdict(model.config)
    # Entries of their own, since version 0.1 refuses configs with further keys.
    newer = {name: config.pop(name) for name in NEWER}
    header = {"format": FORMAT, "config": json.dumps(config), "metrics": json.dumps(metrics or {})}
    header |= {name: json.dumps(value) for name, value in newer.items() if value}
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
        DataError: There is no classifier at ``source``, or its file is broken. The file may come from a stranger: its
            config is checked before a network is made.
    """
    path = Path(source).expanduser()
    if not path.exists() and isinstance(source, str) and storage.is_hub_id(source):
        path = _download(source, revision)
    path = path / FILE if path.is_dir() else path
    if path.is_file() and path.stat().st_size > LARGEST:
        raise DataError(f"{path} is no classifier: it is larger than {LARGEST / 2**30:.0f} GiB")
    state, header = storage.load_tensors(path)
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a relation classifier that this version reads (format {shown(header.get('format'))})"
        )
    config = _config(path, header)
    with torch.device("meta"):  # needs no memory, whatever sizes the config names
        expected = RelationClassifier(config).state_dict()
    check_weights(path, state, expected)
    model = RelationClassifier(config)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    return model.eval().requires_grad_(False)


def check_weights(path: str | Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check the weights in a file before memory is allocated for the network.

    Args:
        path: The file, for messages.
        state: The weights by name.
        expected: Tensors of the shapes that the config gives. Tables of sinusoids (".pe") may be missing in ``state``.

    Raises:
        DataError: A weight is missing, unexpected, of another shape, or not finite floating-point numbers.
    """
    absent = [name for name in expected if name not in state and not name.endswith(".pe")]
    unexpected = [name for name in state if name not in expected]
    if absent or unexpected:
        raise DataError(
            f"{path} does not fit its own config (missing {absent[:2]}, unexpected {shown(unexpected[:2])})"
        )
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in WEIGHT_DTYPES:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise DataError(f"{path} is no classifier: {name} holds {kind}, but weights are floating-point numbers")
        if tensor.shape != expected[name].shape:
            raise DataError(
                f"{path} does not fit its own config: size mismatch of {name}, which is {tuple(tensor.shape)} "
                f"but by the config {tuple(expected[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise DataError(f"{path} is damaged ({name} has values that are not finite); download or train it again")


def _config(path: Path, header: Mapping[str, str]) -> ClassifierConfig:
    """The config in a header."""
    raw = parse_json(header.get("config", ""), f"the config in the header of {path}", AGAIN)
    newer = {
        name: parse_json(header.get(name, absent), f"the entry {name} in the header of {path}", AGAIN)
        for name, absent in NEWER.items()
    }
    try:
        if not isinstance(raw, dict):
            raise DataError(f"it is {shown(raw)}, but a JSON object was expected")
        fields = ClassifierConfig.__dataclass_fields__
        if strange := [name for name in raw if name not in fields]:
            raise DataError(f"it has {shown(strange[0])}, which this version does not know")
        if absent := [name for name in ("classes", "channels", "times", "layout") if name not in raw]:
            raise DataError(f"it has no {absent[0]}")
        config = ClassifierConfig(**newer | raw)
        Layout.from_dict(config.layout)  # which may be empty in a config, but not in a file
        if not (config.levels or config.steps):
            raise DataError("both the levels and the steps that it was trained at are missing")
    except DataError as error:
        raise DataError(f"{path} has no usable config in its header: {error}") from error
    return config


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
