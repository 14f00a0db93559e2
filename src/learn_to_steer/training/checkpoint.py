"""The state of a training run after an epoch. A run resumed from it gives the same result to the bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from learn_to_steer import storage
from learn_to_steer.errors import DataError

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint, atomically.

    Args:
        folder: The folder of the run.
        state: Tensors, numbers and strings in dicts and lists.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    storage.write_atomic(folder / FILE, buffer.getvalue())


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
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign or cut file
        raise DataError(f"{path} cannot be read ({type(error).__name__}); delete it to train anew") from error
    differing = [key for key in identity if state["identity"].get(key) != identity[key]]
    if differing:
        raise DataError(
            f"{folder} holds a run with {differing[0]} {state['identity'].get(differing[0])!r}, "
            f"not {identity[differing[0]]!r}; use another folder"
        )
    return state
