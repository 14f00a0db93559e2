"""From a model's name to a pipeline: a variant, a local diffusers folder, or a hub id."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer import catalog, families
from learn_to_steer.errors import DataError
from learn_to_steer.families._protocol import Family, Variant

PACKAGE = "package:"


def load_pipeline(
    model: str, device: str = "cpu", dtype: torch.dtype | None = None, scheduler: str | None = None
) -> tuple[Any, Variant]:
    """The pipeline called ``model``, on ``device``, silent, and the facts of its variant.

    ``model`` is a variant's name ("sd:emoji"), a folder in diffusers' format, or a hub id ("owner/name"); the
    last two get the usual steps and guidance of their family. ``dtype`` None is the variant's own, and
    float32 on the CPU. ``scheduler`` is a class name of diffusers that replaces the model's own.
    Raises UnknownNameError for a name that is none of the three and DataError for weights that are not there.
    """
    variant = _variant(model)
    source = str(package_folder(variant.source)) if variant else model
    kept = getattr(torch, variant.dtype) if variant and device != "cpu" else torch.float32
    pipe = _from_pretrained(source, dtype or kept)
    wanted = dict(variant.scheduler) if variant else {}
    if scheduler is not None:
        wanted = {"class": scheduler}
    if wanted:
        pipe.scheduler = _scheduler(wanted.pop("class"), pipe.scheduler.config, wanted)
    pipe.set_progress_bar_config(disable=True)
    if variant is None:
        variant = families.find(pipe).unnamed(pipe, model)
    return pipe.to(device), variant


def skeleton(model: str) -> tuple[Family, nn.Module]:
    """The family of ``model`` and its denoiser without weights (on torch's meta device).

    A variant's architecture is known here; of a folder or hub id only the configs are read. Raises as
    ``load_pipeline`` does.
    """
    import diffusers

    variant = _variant(model)
    if variant and not variant.source.startswith(PACKAGE):
        family: Family = catalog.load("families", variant.family).FAMILY
        config: dict[str, Any] = dict(variant.architecture)
    else:
        source = str(package_folder(variant.source)) if variant else model
        family, config = _read_config(source)
    with torch.device("meta"):
        denoiser: nn.Module = getattr(diffusers, family.network).from_config(config)
    return family, denoiser


def _read_config(source: str) -> tuple[Family, dict[str, Any]]:
    import diffusers

    tried = []
    for name in catalog.names("families"):
        family: Family = catalog.load("families", name).FAMILY
        try:
            with _quiet():
                config = getattr(diffusers, family.network).load_config(source, subfolder=family.denoiser)
        except (OSError, ValueError) as error:
            tried.append(" ".join(str(error).split()))
            continue
        if config.get("_class_name") == family.network:
            return family, dict(config)
    raise DataError(f"no model family knows {source}" + (f" ({tried[0]})" if tried else ""))


def package_folder(source: str) -> Path | str:
    """The folder behind ``package:FOLDER``; any other source unchanged. DataError when it is not in this copy."""
    if not source.startswith(PACKAGE):
        return source
    folder = Path(str(files("learn_to_steer").joinpath("emoji", "data", source.removeprefix(PACKAGE))))
    complete = (folder / "model_index.json").is_file() or any(folder.glob("*.safetensors"))
    if not complete:
        raise DataError(
            f"the weights {folder.name!r} are not in this copy of the package; make them with runs/train_base.py "
            "(a model) or with learn-to-steer collect and train (a classifier)"
        )
    return folder


def _variant(model: str) -> Variant | None:
    """The variant of that name; None for a folder or a hub id."""
    known = families.variants()
    if model in known:
        return known[model]
    if Path(model).expanduser().is_dir():
        return None
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise DataError(f"the model folder {model} does not exist; name a diffusers folder, a hub id or a variant")
    if "/" not in model:
        raise catalog.unknown("model", model, known)
    return None


def _from_pretrained(source: str, dtype: torch.dtype) -> Any:
    path = Path(source).expanduser()
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise DataError(f"{source} is not a diffusers pipeline: it has no model_index.json")
    try:
        # A download of gigabytes keeps its progress bar.
        with _quiet(bars=not path.is_dir()):
            # Importing it alone makes transformers warn of image processors that are not used here.
            from diffusers import DiffusionPipeline

            return DiffusionPipeline.from_pretrained(
                str(path) if path.is_dir() else source,
                torch_dtype=dtype,
                safety_checker=None,
                requires_safety_checker=False,
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the model {source} could not be loaded: {reason}") from error


def _scheduler(name: str, config: Any, changes: dict[str, Any]) -> Any:
    import diffusers

    choices = [known for known in dir(diffusers) if known.endswith("Scheduler") and not known.startswith("Flax")]
    if name not in choices:
        near = catalog.nearest(name, choices)
        raise catalog.unknown("scheduler", name, [near] if near else ["DDIMScheduler"])
    with _quiet():
        return getattr(diffusers, name).from_config({**config, **changes})


@contextmanager
def _quiet(bars: bool = False) -> Iterator[None]:
    """No warnings of the model libraries inside, and no progress ``bars``; errors still show."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = [(room, room.get_verbosity()) for room in (diffusers_logging, transformers_logging)]
    shown = [room.is_progress_bar_enabled() for room, _ in before]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for room, _ in before:
                room.set_verbosity_error()
                if not bars:
                    room.disable_progress_bar()
            yield
        finally:
            for (room, level), bar in zip(before, shown, strict=True):
                room.set_verbosity(level)
                if bar:
                    room.enable_progress_bar()
