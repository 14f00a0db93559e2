"""What the name of a model stands for: a variant, a folder in diffusers' format, or a hub id.

Nothing is loaded here; ``loading`` makes pipelines of what is found.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from learn_to_steer import families
from learn_to_steer.errors import DataError
from learn_to_steer.families import Variant
from learn_to_steer.single_files import names_file, require_file
from learn_to_steer.storage import is_hub_id

PACKAGE = "package:"


def package_folder(source: str) -> Path | str:
    """Return the folder of weights in an installed package.

    Args:
        source: ``package:IMPORT_NAME/FOLDER``, or any other source.

    Returns:
        The folder; any other source unchanged.

    Raises:
        DataError: The package is not installed or has no weights there.
    """
    if not source.startswith(PACKAGE):
        return source
    package, _, inside = source.removeprefix(PACKAGE).partition("/")
    try:
        folder = Path(str(files(package).joinpath(inside)))
    except (ModuleNotFoundError, ValueError) as error:
        raise DataError(f"the weights {source} are in the package {package!r}, which is not installed") from error
    if not ((folder / "model_index.json").is_file() or any(folder.glob("*.safetensors"))):
        raise DataError(f"the installed copy of {package} holds no weights in {inside!r}; reinstall it")
    return folder


def hub_source(model: str) -> str:
    """Return the hub id of a model's weights, or "" where they are not from the hub.

    Args:
        model: As for ``named_variant``.
    """
    variant = find_variant(model)
    source = variant.source if variant else model
    return source if is_hub_id(source) and not is_folder(source) and not names_file(source) else ""


def find_variant(model: str) -> Variant | None:
    """Return the variant that ``model`` names, or None for any other text. Raises no error.

    Args:
        model: "sd:2.1", or "sd:2.1=SOURCE" for the same variant with weights from another folder or hub id.
    """
    name, equals, source = model.partition("=")
    variant = families.variants().get(name)
    if variant is None or (equals and not source):
        return None
    if not source:
        return variant
    # Other weights may draw objects that the variant's detectors do not know, and know other words.
    return replace(variant, source=source, detector=None, verifiers=(), objects=None, untaught_words=None)


def named_variant(model: str) -> Variant | None:
    """Return the variant that ``model`` names, and check that ``model`` can be a model at all.

    Args:
        model: A variant ("sd:2.1"), a variant with weights from elsewhere ("sd:2.1=SOURCE"), a folder, a file of
            weights, or a hub id.

    Returns:
        The variant; None for a folder, a file or a hub id.

    Raises:
        UnknownNameError: ``model`` is none of these.
        DataError: The folder or file does not exist, or ``model`` is empty.
        UnsupportedError: The file has a format that is not read.
    """
    variant = find_variant(model)
    if variant is not None:
        source = variant.source
        if names_file(source):
            require_file(source)
        elif "=" in model and not (is_folder(source) or is_hub_id(source)):
            raise DataError(
                f"the model folder {source} does not exist; name a diffusers folder or a hub id after {variant.name}="
            )
        return variant
    if not model.strip():
        raise DataError("no model is named; name a variant, a diffusers folder or a hub id")
    if is_folder(model):
        return None
    if names_file(model):
        require_file(model)
        return None
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise DataError(f"the model folder {model} does not exist; name a diffusers folder, a hub id or a variant")
    if "/" not in model:
        raise families.unknown_model(model)
    return None


def is_folder(path: str) -> bool:
    """Return whether ``path`` is a folder on this machine; "~" is the user's home."""
    return Path(path).expanduser().is_dir()


def classifier_source(variant: Variant) -> Path | str:
    """Return the folder or hub id of the classifier that comes with a variant.

    Raises:
        DataError: There is none, or the installed package lacks it. The message says how to get one.
    """
    if variant.classifier is not None:
        return package_folder(variant.classifier)
    raise DataError(
        f"no classifier comes with {variant.name}: convert one of the paper's authors (learn-to-steer import-official "
        "FILE.pth --model ... --out DIR) or train one (learn-to-steer collect, then train), then name its folder: "
        "--classifier DIR, or Steerer.from_pretrained(DIR) in Python"
    )
