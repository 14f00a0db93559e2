"""The catalog of plug-ins: the plural folders are the registry, a file's name is the plug-in's name.

``objectives/learned.py`` is the objective ``learned``. Files that start with an underscore are not
plug-ins. Names are shown with hyphens; underscores and capitals are understood alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from types import ModuleType

from learn_to_steer.errors import UnknownNameError

# Folder -> what one of its plug-ins is called in messages.
KINDS = {
    "families": "family",
    "objectives": "objective",
    "benchmarks": "benchmark",
    "detectors": "detector",
    "sources": "source",
    "inversion": "inversion",
}


def names(kind: str) -> list[str]:
    """Names of the plug-ins of ``kind`` (a key of KINDS), sorted, without importing any of them."""
    if kind not in KINDS:
        raise ValueError(f"no plug-in folder is called {kind!r}; there are {', '.join(KINDS)}")
    found = (entry.name for entry in files("learn_to_steer").joinpath(kind).iterdir())
    return sorted(normal(n.removesuffix(".py")) for n in found if n.endswith(".py") and not n.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """Import the plug-in ``name`` of ``kind``.

    Raises UnknownNameError, which lists the choices and the nearest of them, when there is none.
    """
    choices = names(kind)
    if normal(name) not in choices:
        raise unknown(KINDS[kind], name, choices)
    return import_module(f"learn_to_steer.{kind}.{normal(name).replace('-', '_')}")


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that ``name`` was probably meant to be, or None when nothing is close."""
    by_normal = {normal(choice): choice for choice in choices}
    matches = get_close_matches(normal(name), by_normal, n=1, cutoff=0.5)
    return by_normal[matches[0]] if matches else None


def unknown(what: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """The error, to be raised by the caller, for a ``what`` (singular noun) that is not among ``choices``."""
    choices = list(choices)
    meant = nearest(name, choices)
    hint = f"; did you mean {meant!r}?" if meant else ""
    return UnknownNameError(f"unknown {what} {name!r}{hint} (choices: {', '.join(choices) or 'none'})")


def normal(name: str) -> str:
    """``name`` as it is compared and shown: trimmed, lower case, hyphens for underscores."""
    return name.strip().lower().replace("_", "-")
