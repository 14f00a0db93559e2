"""Imported by every Python process of the cluster of ``ray_campaign``: a full disk, while a marker file exists.

Writing below the folder that ``CHAOS_FULL`` names then fails with ENOSPC.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

FOLDER = os.environ.get("CHAOS_FULL", "")


def _refuse(path: str) -> None:
    if path.startswith(FOLDER) and os.path.exists(f"{FOLDER}.full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _checked(function: Callable[..., Any], path_of: Callable[..., str]) -> Callable[..., Any]:
    def called(*arguments: Any, **more: Any) -> Any:
        _refuse(path_of(*arguments))
        return function(*arguments, **more)

    return called


if FOLDER:
    os.fsync = _checked(os.fsync, lambda file: os.readlink(f"/proc/self/fd/{file}"))
    os.replace = _checked(os.replace, lambda source, target: str(target))
