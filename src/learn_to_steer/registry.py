"""The registry of plug-ins: files in this package's own folders, and entry points of installed packages.

A file is a plug-in of the kind that its folder holds: ``detectors/owlv2.py`` is the detector ``owlv2``. Files that
start with an underscore, and ``base.py``, which says what a plug-in must offer, are none. Another package adds plug-ins
with entry points::

    [project.entry-points."learn_to_steer.losses"]
    my-loss = "my_package.my_loss"

The name is the plug-in's name. The value is a module, or an object in one (``my_package.losses:MY_LOSS``), that offers
what ``base.py`` says. Nothing is imported before it is used. Names are shown with hyphens; underscores and capitals are
understood alike. See ``docs/plugins.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from learn_to_steer.errors import PluginError, UnknownNameError

# The model that the command line takes when none is named. It comes with a package of its own.
DEFAULT_MODEL = "sd:emoji"
DEFAULT_MODEL_PACKAGE = "learn-to-steer-emoji"
DEFAULT_MODEL_FOLDER = "./emoji_world"  # of a clone

OWN = "learn-to-steer"
NOT_PLUGINS = ("base",)
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in.

    Attributes:
        singular: What one of them is called in messages.
        group: The group of entry points in which other packages declare theirs.
        offers: Attributes that a plug-in of another package must have.
    """

    singular: str
    group: str
    offers: tuple[str, ...]


# By the folder of this package that holds its own; variants stand in the files of their families, embedders nowhere.
KINDS = {
    "families": Kind("family", "learn_to_steer.families", ("FAMILY",)),
    "variants": Kind("model", "learn_to_steer.variants", ("VARIANTS",)),
    "losses": Kind("loss", "learn_to_steer.losses", ("build",)),
    "benchmarks": Kind("benchmark", "learn_to_steer.benchmarks", ("NAMES", "prompts")),
    "detectors": Kind("detector", "learn_to_steer.detectors", ("load", "vocabulary")),
    "sources": Kind("source", "learn_to_steer.sources", ("NOTE", "images")),
    "inversion": Kind("inversion", "learn_to_steer.inversions", ("invert",)),
    "embedders": Kind("embedder", "learn_to_steer.embedders", ("load",)),
}


@dataclass(frozen=True)
class _Plugin:
    """Where a plug-in is: ``module``, and in it the object ``attribute`` unless that is empty; ``owner`` carries it."""

    owner: str
    module: str
    attribute: str = ""


@dataclass(frozen=True)
class Declared(Generic[T]):
    """What plug-ins declare under names of their own.

    Attributes:
        entries: By name.
        clashes: Names that two plug-ins declare, none of which is in ``entries``: what to tell whoever asks for one.
    """

    entries: Mapping[str, T]
    clashes: Mapping[str, str]


def names(kind: str) -> list[str]:
    """The names of all plug-ins of a kind, without importing any of them.

    Args:
        kind: A key of ``KINDS``.

    Returns:
        Names with hyphens, sorted.
    """
    return sorted(_plugins(kind))


def load(kind: str, name: str) -> Any:
    """Import a plug-in.

    Args:
        kind: A key of ``KINDS``.
        name: The plug-in's name; underscores and capitals are understood.

    Returns:
        The module or object that offers what the ``base.py`` of its kind says.

    Raises:
        UnknownNameError: There is none of that name; the message lists the choices and the nearest of them.
        PluginError: Two packages have one of that name, or the package that has it is broken.
    """
    known = _plugins(kind)
    if normal(name) not in known:
        raise unknown(KINDS[kind].singular, name, names(kind))
    first, *others = known[normal(name)]
    if others:
        owners = " and ".join(plugin.owner for plugin in (first, *others))
        raise PluginError(_clash(KINDS[kind].singular, normal(name), owners))
    return _import(KINDS[kind], normal(name), first)


@cache
def load_all(kind: str) -> Mapping[str, Any]:
    """Import every plug-in of a kind. Those that are broken or clash are left out, each with a warning.

    Args:
        kind: A key of ``KINDS``.

    Returns:
        Plug-ins by name, in the order of ``names``.
    """
    found = {}
    for name in names(kind):
        try:
            found[name] = load(kind, name)
        except PluginError as error:
            log.warning("%s", error)
    return MappingProxyType(found)


def declared(entries: Callable[[Any], Mapping[str, T]], *kinds: str) -> Declared[T]:
    """What all plug-ins declare under names of their own, as one file of benchmarks declares several of them.

    Args:
        entries: What one plug-in declares, by name.
        kinds: Keys of ``KINDS``: which plug-ins to ask.

    Returns:
        The entries of all plug-ins that could be imported.
    """
    found: dict[str, T] = {}
    owners: dict[str, list[str]] = {}
    for kind in kinds:
        for plugin, module in load_all(kind).items():
            for name, entry in entries(module).items():
                found[name] = entry
                owners.setdefault(name, []).append(f"{plugin!r} of {_plugins(kind)[plugin][0].owner}")
    clashes = {
        name: _clash(KINDS[kinds[0]].singular, name, " and ".join(several))
        for name, several in owners.items()
        if len(several) > 1
    }
    return Declared({name: entry for name, entry in found.items() if name not in clashes}, clashes)


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


@cache
def _plugins(kind: str) -> dict[str, list[_Plugin]]:
    """Name -> who offers it: this package's own plug-in first."""
    if kind not in KINDS:
        raise ValueError(f"there is no kind of plug-in {kind!r}; there are {', '.join(KINDS)}")
    found: dict[str, list[_Plugin]] = {}
    folder = files("learn_to_steer").joinpath(kind)
    for file in folder.iterdir() if folder.is_dir() else ():
        stem = file.name.removesuffix(".py")
        if file.name.endswith(".py") and not stem.startswith("_") and stem not in NOT_PLUGINS:
            found[normal(stem)] = [_Plugin(OWN, f"learn_to_steer.{kind}.{stem}")]
    for point in sorted(entry_points(group=KINDS[kind].group), key=attrgetter("name", "value")):
        found.setdefault(normal(point.name), []).append(_Plugin(_distribution(point), point.module, point.attr))
    return found


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _import(kind: Kind, name: str, plugin: _Plugin) -> Any:
    try:
        found: Any = import_module(plugin.module)
        if plugin.attribute:
            found = attrgetter(plugin.attribute)(found)
    except Exception as error:
        if plugin.owner == OWN:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(
            f"the {kind.singular} {name!r} of the installed package {plugin.owner} cannot be imported ({reason}); "
            "update that package or uninstall it"
        ) from error
    missing = [offer for offer in kind.offers if not hasattr(found, offer)]
    if missing and plugin.owner != OWN:  # the objective ``learned`` is built from a classifier
        raise PluginError(
            f"the {kind.singular} {name!r} of the installed package {plugin.owner} lacks {', '.join(missing)}; "
            "update that package or uninstall it"
        )
    return found


def _clash(singular: str, name: str, owners: str) -> str:
    return f"more than one {singular} is called {name!r} ({owners}); uninstall one of these packages"
