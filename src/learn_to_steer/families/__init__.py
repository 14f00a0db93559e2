"""Model families: what steering must know about a kind of diffusers model, one file per family.

``base.py`` says what a family must offer. ``find(pipe)`` returns the family of a pipeline, ``resolve("sd:1.4")`` the
variant of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learn_to_steer import registry
from learn_to_steer.errors import DataError, PluginError, SteerError, UnknownNameError, UnsupportedError
from learn_to_steer.families.base import Call, Family
from learn_to_steer.families.variant import Variant

__all__ = [
    "DENOISERS",
    "Call",
    "Family",
    "Variant",
    "find",
    "of_config",
    "resolve",
    "unknown_model",
    "unknown_pipeline",
    "usual_source",
    "variants",
]

DENOISERS = ("unet", "transformer")
"""Names of the components of pipelines that denoise."""

# Networks without a gradient with respect to the latents, or with a wrong one: as a part of a sentence, why.
_NO_GRADIENT = {"HiDreamImageTransformer2DModel": ", whose experts run without gradients"}


def variants() -> dict[str, Variant]:
    """Return every variant by its full name ("sd:1.4"): those of the families, and those of installed packages."""
    return dict(_declared().entries)


def resolve(name: str) -> Variant:
    """Return the variant called ``name``.

    Raises:
        UnknownNameError: There is none; the message names the nearest one.
        PluginError: More than one installed package has one of that name.
    """
    known = variants()
    if name not in known:
        raise unknown_model(name)
    return known[name]


def unknown_model(name: str) -> SteerError:
    """Return the error for a name that no variant has, or more than one. The caller raises it."""
    known = _declared()
    if name in known.clashes:
        return PluginError(known.clashes[name])
    error = registry.unknown("model", name, known.entries)
    if registry.DEFAULT_MODEL in known.entries:
        return error
    return UnknownNameError(
        f"{error}; small models to begin with are a package of their own: pip install "
        f"{registry.DEFAULT_MODEL_PACKAGE} (from a clone: pip install {registry.DEFAULT_MODEL_FOLDER})"
    )


def usual_source(model: str) -> str:
    """Return the source of labelled images that is used for a model when the user names none.

    Args:
        model: A variant, also with weights from elsewhere ("sd:2.1=FOLDER"), a folder, or a hub id.

    Returns:
        The name of the variant's source; for other models that of the default model.

    Raises:
        DataError: There is neither.
    """
    known = variants()
    for variant in (known.get(model.partition("=")[0]), known.get(registry.DEFAULT_MODEL)):
        if variant and variant.image_source:
            return variant.image_source
    raise DataError(f"name a --source of labelled images for {model} (see: list sources)")


def family(name: str) -> Family:
    """Return a family by its name.

    Args:
        name: As ``list families`` shows it.

    Raises:
        UnknownNameError: There is none of that name.
    """
    found: Family = registry.load("families", name).FAMILY
    return found


def find(pipe: Any) -> Family:
    """Return the family that a diffusers pipeline belongs to.

    Raises:
        UnsupportedError: No family knows the pipeline, or peft wraps its denoiser.
    """
    for plugin in registry.load_all("families").values():
        family: Family = plugin.FAMILY
        if family.matches(pipe):
            return family
    name = next((name for name in DENOISERS if getattr(pipe, name, None) is not None), None)
    if name and type(getattr(pipe, name)).__module__.partition(".")[0] == "peft":
        raise UnsupportedError(
            f"pipe.{name} is wrapped by peft, and no model family knows it so; merge the adapter into the weights "
            f"(pipe.{name} = pipe.{name}.merge_and_unload()), or load it with pipe.load_lora_weights"
        )
    raise unknown_pipeline(type(pipe).__name__, name, type(getattr(pipe, name)).__name__ if name else "")


def unknown_pipeline(pipeline: str, component: str | None, network: str) -> UnsupportedError:
    """Return the error for a pipeline that belongs to no family.

    Args:
        pipeline: Name of its class.
        component: Name of its denoiser, "unet" or "transformer"; None if it has none.
        network: Class name of that.
    """
    denoiser = ""
    if component:
        families = [name for name, plugin in registry.load_all("families").items() if plugin.FAMILY.network == network]
        other = f" with other inputs or another text than those of {' and '.join(families)}" if families else ""
        denoiser = f" (its {component} is a {network}{_NO_GRADIENT.get(network, other)})"
    return UnsupportedError(
        f"no model family knows the pipeline {pipeline}{denoiser}; use a model of one of the families "
        f"{', '.join(registry.names('families'))} (see: learn-to-steer list models)"
    )


def of_config(config: Mapping[str, Any]) -> Family | None:
    """Return the family that a denoiser belongs to by its config; None if no family knows it.

    Args:
        config: The config of a denoiser, with the name of its class as ``_class_name``.
    """
    for plugin in registry.load_all("families").values():
        family: Family = plugin.FAMILY
        known = config.get("_class_name") in (family.network, *family.former_networks)
        if known and family.knows_config(config):
            return family
    return None


def _declared() -> registry.Declared[Variant]:
    return registry.declared(_by_name, "variants", "families")


def _by_name(plugin: Any) -> Mapping[str, Variant]:
    return {variant.name: variant for variant in getattr(plugin, "VARIANTS", ())}
