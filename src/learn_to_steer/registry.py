"""The registry of plug-ins: files in this package's own folders, and entry points of installed packages.

Each file in such a folder is a plug-in: ``detectors/owlv2.py`` is the detector ``owlv2``. Files that begin with
an underscore are no plug-ins; neither is ``base.py``, which says what a plug-in of that folder must offer, nor are
others that help to write plug-ins (``NOT_PLUGINS``). Other packages add plug-ins with entry points::

    [project.entry-points."learn_to_steer.losses"]
    my-loss = "my_package.my_loss"

The key is the plug-in's name. The value is a module, or an object in one (``my_package.losses:MY_LOSS``), that offers
what ``base.py`` says. A plug-in is imported when it is first used. Names are shown in lower case with hyphens;
underscores and capitals are accepted. See ``docs/plugins.md``.
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

# The model that the command line uses when none is given. It is part of a separate package.
DEFAULT_MODEL = "sd:emoji"
DEFAULT_MODEL_PACKAGE = "learn-to-steer-emoji"
DEFAULT_MODEL_FOLDER = "./emoji_world"  # where that package is in a clone of the repository

OWN = "learn-to-steer"
NOT_PLUGINS = ("base", "chat", "defaults", "testing", "variant")
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in.

    Attributes:
        singular: What one plug-in is called in messages.
        group: The entry point group in which other packages register theirs.
        offers: Names that a plug-in of another package must define.
    """

    singular: str
    group: str
    offers: tuple[str, ...]


# By the folder of this package that holds its own plug-ins. Two kinds have no folder here: variants are declared in
# the file of their family; embedders (``evaluation.run_comparison.Embedder``) come from other packages only.
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
    """Where a plug-in is: ``module``, or its ``attribute`` unless empty. ``owner`` is the package that has it."""

    owner: str
    module: str
    attribute: str = ""


@dataclass(frozen=True)
class Declared(Generic[T]):
    """What plug-ins declare under names of their own, such as the variants of the families.

    Attributes:
        entries: What is declared, by name, except for names that are declared more than once.
        clashes: The error message for each of those names.
    """

    entries: Mapping[str, T]
    clashes: Mapping[str, str]


def names(kind: str) -> list[str]:
    """Return the names of all plug-ins of a kind, without importing any of them.

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
        name: The plug-in's name.

    Returns:
        The module or object.

    Raises:
        UnknownNameError: There is none of that name; the message names the nearest one and lists all.
        PluginError: Two packages have one of that name, or it cannot be imported, or it lacks what it must offer.
    """
    plugins = _plugins(kind)
    if normal(name) not in plugins:
        raise unknown(KINDS[kind].singular, name, names(kind))
    first, *others = plugins[normal(name)]
    if others:
        owners = " and ".join(plugin.owner for plugin in (first, *others))
        raise PluginError(_clash(KINDS[kind].singular, normal(name), owners))
    return _import(KINDS[kind], normal(name), first)


@cache
def load_all(kind: str) -> Mapping[str, Any]:
    """Import every plug-in of a kind. One that is broken, or shares its name, is left out with a warning.

    Args:
        kind: A key of ``KINDS``.

    Returns:
        The plug-ins by name, sorted.
    """
    plugins = {}
    for name in names(kind):
        try:
            plugins[name] = load(kind, name)
        except PluginError as error:
            log.warning("%s", error)
    return MappingProxyType(plugins)


def declared(entries: Callable[[Any], Mapping[str, T]], *kinds: str) -> Declared[T]:
    """Collect what plug-ins declare under names of their own: a file of benchmarks, for example, declares several.

    Args:
        entries: Returns what one plug-in declares, by name.
        kinds: Keys of ``KINDS``: the kinds of plug-ins to collect from.

    Returns:
        The entries of all plug-ins that can be imported.
    """
    collected: dict[str, T] = {}
    owners: dict[str, list[str]] = {}
    for kind in kinds:
        for plugin, module in load_all(kind).items():
            for name, entry in entries(module).items():
                collected[name] = entry
                owners.setdefault(name, []).append(f"{plugin!r} of {_plugins(kind)[plugin][0].owner}")
    clashes = {
        name: _clash(KINDS[kinds[0]].singular, name, " and ".join(declarers))
        for name, declarers in owners.items()
        if len(declarers) > 1
    }
    return Declared({name: entry for name, entry in collected.items() if name not in clashes}, clashes)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to ``name``, a misspelt one; None if none is similar."""
    by_normal = {normal(choice): choice for choice in choices}
    matches = get_close_matches(normal(name), by_normal, n=1, cutoff=0.5)
    return by_normal[matches[0]] if matches else None


def unknown(what: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that does not exist. The caller raises it.

    Args:
        what: What the name should be the name of, a singular noun.
        name: The unknown name.
        choices: The names that exist.
    """
    choices = list(choices)
    similar = nearest(name, choices)
    hint = f"; did you mean {similar!r}?" if similar else ""
    return UnknownNameError(f"unknown {what} {name!r}{hint} (choices: {', '.join(choices) or 'none'})")


def normal(name: str) -> str:
    """Return ``name`` as names are compared and shown: trimmed, in lower case, with hyphens for underscores."""
    return name.strip().lower().replace("_", "-")


@cache
def _plugins(kind: str) -> dict[str, list[_Plugin]]:
    """The plug-ins of each name, this package's own one first."""
    if kind not in KINDS:
        raise ValueError(f"there is no kind of plug-in {kind!r}; there are {', '.join(KINDS)}")
    plugins: dict[str, list[_Plugin]] = {}
    folder = files("learn_to_steer").joinpath(kind)
    for file in folder.iterdir() if folder.is_dir() else ():
        stem = file.name.removesuffix(".py")
        if file.name.endswith(".py") and not stem.startswith("_") and stem not in NOT_PLUGINS:
            plugins[normal(stem)] = [_Plugin(OWN, f"learn_to_steer.{kind}.{stem}")]
    for point in sorted(entry_points(group=KINDS[kind].group), key=attrgetter("name", "value")):
        plugins.setdefault(normal(point.name), []).append(_Plugin(_distribution(point), point.module, point.attr))
    return plugins


def _distribution(point: EntryPoint) -> str:
    """Name and version of the package that registers an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _import(kind: Kind, name: str, plugin: _Plugin) -> Any:
    try:
        loaded: Any = import_module(plugin.module)
        if plugin.attribute:
            loaded = attrgetter(plugin.attribute)(loaded)
    except Exception as error:
        if plugin.owner == OWN:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(
            f"the {kind.singular} {name!r} of the installed package {plugin.owner} cannot be imported ({reason}); "
            "update that package or uninstall it"
        ) from error
    missing = [offer for offer in kind.offers if not hasattr(loaded, offer)]
    # Of this package's own plug-ins, the loss "learned" has no ``build``: it is made from a classifier.
    if missing and plugin.owner != OWN:
        raise PluginError(
            f"the {kind.singular} {name!r} of the installed package {plugin.owner} lacks {', '.join(missing)}; "
            "update that package or uninstall it"
        )
    return loaded


def _clash(singular: str, name: str, owners: str) -> str:
    return f"more than one {singular} is called {name!r} ({owners}); uninstall one of these packages"
