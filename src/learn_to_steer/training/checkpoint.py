"""The state of a training run after an epoch. A run resumed from it gives the same result to the bit.

The file is one that ``torch.load`` reads. Its SHA-256 stands in the comment of the zip archive. Files of version 0.1
have no comment; the checksums of the archive are checked instead.
"""

from __future__ import annotations

import hashlib
import io
import math
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.validation import validated

FILE = "checkpoint.pt"
ANEW = "delete it, and training starts again from the first epoch"
PREFIX = b"sha256:"
COMMENT = len(PREFIX) + 64
# Settings of AdamW and ReduceLROnPlateau that are not in all versions of torch.
OF_SOME_VERSIONS = {"decoupled_weight_decay", "default_min_lr", "mode_worse", "verbose", "_last_lr", "initial_lr"}

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Epoch(BaseModel):
    """What is recorded of an epoch."""

    train_loss: Finite
    """Mean loss of the batches."""
    val_loss: Finite
    """Loss on the validation rows."""
    val_accuracy: Annotated[float, Field(ge=0, le=1)]
    """Share of the validation rows whose relation is predicted."""
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """The learning rate."""


class _Facts(BaseModel):
    """The parts of a checkpoint without tensors."""

    model_config = ConfigDict(extra="ignore")

    identity: dict[str, Any]
    history: Annotated[list[Epoch], Field(min_length=1)]


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint, atomically. Equal states give equal bytes.

    Args:
        folder: The folder of the run.
        state: Tensors, numbers and strings in dicts and lists.
    """
    buffer = io.BytesIO()
    torch.save(_rebuilt(state), buffer)
    data = buffer.getvalue()
    comment = PREFIX + hashlib.sha256(data).hexdigest().encode()
    # A zip archive ends with the length of its comment, which is 0 here, and the comment.
    storage.write_atomic(folder / FILE, data[:-2] + len(comment).to_bytes(2, "little") + comment)


def read(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint.

    Args:
        path: The file.

    Raises:
        DataError: The file is no checkpoint, or does not match its digest.
    """
    data = storage.read_bytes(path)
    try:
        _check_digest(data)
        state: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign or cut file
        raise DataError(f"{path} is damaged or no checkpoint; {ANEW}") from error
    tables = ("identity", "model", "best", "optimizer", "plateau")
    wrong = [name for name in tables if not isinstance(state, dict) or not isinstance(state.get(name), dict)]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} is missing or malformed; {ANEW}")
    validated({name: state.get(name) for name in ("identity", "history")}, _Facts, str(path), ANEW)
    return dict(state)


def load(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state in a folder; None if there is no checkpoint.

    Args:
        folder: The folder of the run.
        identity: The settings and data of the run that is to be resumed.

    Raises:
        DataError: The file is broken, or belongs to another run; the message says what differs.
    """
    path = folder / FILE
    if not path.exists():
        return None
    state = read(path)
    stored = state["identity"]
    # A setting that one of them lacks is None in it, such as the depth of a run of all layers.
    differing = [key for key in identity | stored if stored.get(key) != identity.get(key)]
    if differing:
        raise DataError(
            f"{folder} holds a run with {differing[0]} {stored.get(differing[0])!r}, "
            f"not {identity.get(differing[0])!r}; use another folder"
        )
    return state


def require_fit(path: Path, state: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Check that a checkpoint has the names, types and shapes of the run that is to be resumed.

    Args:
        path: The file of the checkpoint, for the error message.
        state: The state in it.
        present: The state of the run before its first epoch, as far as it has to be alike.

    Raises:
        DataError: They differ, a number of the checkpoint is NaN, or a tensor not finite.
    """
    wrong = next((name for name in present if not _fits(state[name], present[name])), None)
    if wrong is not None:
        raise DataError(f"{path}: {wrong} does not fit this run; {ANEW}")


def _fits(stored: Any, present: Any) -> bool:
    if isinstance(present, Tensor):
        same = isinstance(stored, Tensor) and (stored.shape, stored.dtype) == (present.shape, present.dtype)
        return same and bool(stored.isfinite().all())
    if isinstance(present, Mapping):
        # Versions of torch differ in the settings of an optimizer; those that one of them lacks are left out.
        needed = present.keys() - OF_SOME_VERSIONS
        return (
            isinstance(stored, Mapping)
            and needed <= stored.keys() <= present.keys() | OF_SOME_VERSIONS
            and all(_fits(stored[key], present[key]) for key in present if key in stored)
        )
    if isinstance(present, list | tuple):
        same = isinstance(stored, list | tuple) and len(stored) == len(present)
        return same and all(map(_fits, stored, present))
    if isinstance(present, int | float) and not isinstance(present, bool):
        return isinstance(stored, int | float) and not isinstance(stored, bool) and not math.isnan(stored)
    return type(stored) is type(present)


def _rebuilt(value: Any) -> Any:
    """A copy in which no two containers are one object, but equal texts are: pickle writes what is shared once."""
    if isinstance(value, Mapping):
        return {_rebuilt(key): _rebuilt(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rebuilt(part) for part in value]
    if isinstance(value, tuple):
        return tuple([_rebuilt(part) for part in value])
    return sys.intern(value) if type(value) is str else value


def _check_digest(data: bytes) -> None:
    """Raise ValueError or BadZipFile unless a checkpoint matches its digest, or else the checksums of its archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        comment = archive.comment
        if not comment and archive.testzip() is not None:
            raise ValueError("a checksum does not match")
    if comment or data[-COMMENT:].startswith(PREFIX):
        body = data[: -2 - COMMENT] + b"\0\0"
        if (
            data[len(body) - 2 :] != COMMENT.to_bytes(2, "little") + comment
            or comment != PREFIX + hashlib.sha256(body).hexdigest().encode()
        ):
            raise ValueError("the digest does not match")
