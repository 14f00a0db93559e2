"""Model families: one file each, a small table of facts and how they are asked for.

``find(pipe)`` names the family of a user's pipeline; ``resolve("sd:emoji")`` the variant behind a name.
"""

from __future__ import annotations

from typing import Any

from learn_to_steer import catalog
from learn_to_steer.errors import UnknownNameError, UnsupportedError
from learn_to_steer.families._protocol import Call, Family, Variant

__all__ = ["Call", "Family", "Variant", "find", "resolve", "variants"]


def variants() -> dict[str, Variant]:
    """Every variant of every family, by its full name (``sd:emoji``)."""
    found = {}
    for name in catalog.names("families"):
        for variant in catalog.load("families", name).VARIANTS:
            found[variant.name] = variant
    return found


def resolve(name: str) -> Variant:
    """The variant called ``name``; raises UnknownNameError with the nearest match."""
    known = variants()
    if name not in known:
        close = catalog.nearest(name, list(known))
        hint = f"; did you mean {close}?" if close else ""
        raise UnknownNameError(f"there is no model variant {name!r}{hint} Known: {', '.join(sorted(known))}")
    return known[name]


def find(pipe: Any) -> Family:
    """The family of a diffusers pipeline; raises UnsupportedError when no family knows it."""
    for name in catalog.names("families"):
        family: Family = catalog.load("families", name).FAMILY
        if family.knows(pipe):
            return family
    known = ", ".join(catalog.names("families"))
    raise UnsupportedError(f"no model family knows the pipeline {type(pipe).__name__}; families: {known}")
