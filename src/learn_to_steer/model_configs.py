"""Checks the configs of a model's folder before diffusers reads them, since they may come from a stranger.

``model_index.json`` names the classes to load; older versions of diffusers import whatever module it names. Component
configs give the sizes of networks, which are made before their weights are seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learn_to_steer.errors import DataError
from learn_to_steer.plain_text import shown
from learn_to_steer.storage import LARGEST_OF_PEOPLE, read_json

AGAIN = "download or save the model again"
NO_CODE = "code that comes with a model is never run"
INDEX = "model_index.json"
CONFIGS = ("config.json", "scheduler_config.json", "preprocessor_config.json")
PATTERNS = (INDEX, *(f"*/{name}" for name in CONFIGS))
LARGEST_NUMBER = 10_000_000  # above any size, vocabulary or token id
MOST_LAYERS = 1000
MOST_TIMES = 1_000_000
LONGEST_LIST = 2000
REPEATED = re.compile(r"layers|blocks|depth")  # in the names of numbers that say how often a module is made


def check_model(folder: Path, source: str) -> None:
    """Check ``model_index.json`` and the config of every component that it lists.

    Args:
        folder: The folder of the model, or one with only its configs.
        source: What the user calls the model, for messages.

    Raises:
        DataError: A component or the pipeline is no class of diffusers or transformers, code comes with the model, or
            a config is broken or has a size that no model has.
    """
    import diffusers

    index = _read(folder / INDEX)
    class_name = index.get("_class_name")
    pipeline = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    if not (isinstance(pipeline, type) and issubclass(pipeline, diffusers.DiffusionPipeline)):
        raise DataError(f"{source}: the pipeline {shown(class_name)} in {INDEX} is none of diffusers; {NO_CODE}")
    if getattr(pipeline, "_load_connected_pipes", False):
        raise DataError(f"{source}: the pipeline {class_name} loads other models, which is not supported")
    for name, value in index.items():
        if isinstance(value, list):
            _check_component(folder, source, name, value)


def component_class(name: str, library: Any, class_name: Any) -> type[Any]:
    """Return the class of a component that ``model_index.json`` names.

    Args:
        name: The component, for messages.
        library: The library that it names.
        class_name: The class that it names.

    Raises:
        DataError: It is no class of diffusers or transformers that a component may have.
    """
    import diffusers
    import transformers

    found = None
    if isinstance(class_name, str):
        if library == "diffusers":
            found = _subclass(diffusers, class_name, (diffusers.ModelMixin, diffusers.SchedulerMixin))
        elif library == "transformers" and not class_name.startswith("Auto"):  # those may load code
            # Former names of image processors; diffusers knows them too.
            names = (class_name, class_name.replace("FeatureExtractor", "ImageProcessor"))
            found = next((one for each in names if (one := _subclass(transformers, each, (object,)))), None)
        elif isinstance(library, str) and hasattr(diffusers.pipelines, library):  # such as a safety checker
            found = _subclass(
                getattr(diffusers.pipelines, library), class_name, (diffusers.ModelMixin, transformers.PreTrainedModel)
            )
    if found is None:
        raise DataError(
            f"the component {shown(name)} in {INDEX} is {shown(class_name)} of {shown(library)}, which is no class of "
            f"diffusers or transformers that can be loaded; {NO_CODE}"
        )
    return found


def check_config(config: Any, where: str) -> None:
    """Check that the numbers in a component's config are those of a model that can exist.

    Args:
        config: The config.
        where: Its file, for messages.

    Raises:
        DataError: It is no mapping, or a number in it is too large.
    """
    if not isinstance(config, Mapping):
        raise DataError(f"{where} must hold a JSON object, not {shown(config)}")
    for key, value in config.items():
        _check_value(str(key), value, where)


def _check_component(folder: Path, source: str, name: str, value: list[Any]) -> None:
    """Check the class of a component, and its config."""
    if not name.isidentifier() or len(value) != 2:
        raise DataError(f"{source}: {INDEX} has {shown({name: value})}, but a component is a library and a class")
    library, class_name = value
    if library is None and class_name is None:
        return
    try:
        component_class(name, library, class_name)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    if (folder / name / f"{library}.py").exists():
        raise DataError(f"{source}: the component {name} comes with the code {library}.py; {NO_CODE}")
    for file in CONFIGS:
        path = folder / name / file
        if path.is_file():
            check_config(_read(path), str(path))


def _check_value(key: str, value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_value(str(name), part, where)
    elif isinstance(value, list):
        if len(value) > LONGEST_LIST:
            raise DataError(f"{where}: {key} is a list of {len(value)} values, which no model has")
        for part in value:
            _check_value(key, part, where)
    elif isinstance(value, str) and "attn_implementation" in key and "/" in value:
        raise DataError(f"{where}: {key} names code to download, {shown(value)}; {NO_CODE}")
    elif isinstance(value, int) and not isinstance(value, bool):
        limit = MOST_LAYERS if REPEATED.search(key) else MOST_TIMES if key.endswith("timesteps") else LARGEST_NUMBER
        least = 0 if REPEATED.search(key) else -LARGEST_NUMBER
        if not least <= value <= limit:
            raise DataError(f"{where}: {key} is {shown(value)}, which no model has (it is from {least} to {limit})")


def _subclass(module: Any, name: str, bases: tuple[type[Any], ...]) -> type[Any] | None:
    """The class ``name`` of a module of diffusers or transformers, if it has one of the bases."""
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, bases):
        return found if found.__module__.partition(".")[0] in ("diffusers", "transformers") else None
    return None


def _read(path: Path) -> dict[str, Any]:
    # A scheduler's config may hold -Infinity.
    value = read_json(path, None, AGAIN, finite=False, largest=LARGEST_OF_PEOPLE)
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, not {shown(value)}")
    return value
