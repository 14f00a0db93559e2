"""Make the pipeline of a checkpoint of one file, without a network.

diffusers converts the weights, by configs that come with this package or from a folder that the user names (the base).
A single file holds no tokenizers, and may lack text encoders and the VAE: these come from the base, or from a model of
the same kind in the hub's cache.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from learn_to_steer import families
from learn_to_steer.errors import DataError, MismatchError, SteerError, UnsupportedError
from learn_to_steer.families import Variant
from learn_to_steer.model_configs import INDEX, PATTERNS, check_model, component_class
from learn_to_steer.single_files import SingleFile
from learn_to_steer.storage import read_json, write_json

_CONFIGS = Path(__file__).with_name("single_file_configs.json")
_WEIGHTS = ("*.safetensors", "*.bin")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_OPTIONAL = ("text_encoder_3", "tokenizer_3")  # of SD3: it also draws without T5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Component:
    """A component of a released pipeline: its class, and its config."""

    library: str
    class_name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Released:
    """A released pipeline.

    Attributes:
        components: Name of each component but the denoiser -> its entry in ``Known.components``.
        settings: What else stands in its index.
        hub: Hub ids whose components fit, the model's own first.
    """

    components: Mapping[str, str]
    settings: Mapping[str, Any]
    hub: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """The content of ``single_file_configs.json``."""

    about: str
    sources: tuple[str, ...]
    unconfirmed: tuple[str, ...]
    components: Mapping[str, Component]
    pipelines: Mapping[str, Released]


@dataclass(frozen=True)
class Base:
    """A model in the format of diffusers, from which a single file's pipeline takes what the file lacks.

    Attributes:
        place: Its folder or hub id.
        folder: The folder with its configs.
        commit: The commit of a hub id.
        index: Its index; empty if it has none.
    """

    place: str
    folder: Path
    commit: str | None = None
    index: Mapping[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether there is a component ``name`` to load."""
        if self.commit is not None:  # what the index lists is fetched
            return bool(self.index.get(name, [None])[0])
        part = self.folder / name
        return any((part / file).is_file() for file in _VOCABULARIES) or any(
            any(part.glob(pattern)) for pattern in _WEIGHTS
        )

    def config(self, name: str) -> Path | None:
        """The file of a component's config, if there is one."""
        files = (self.folder / name / file for file in ("scheduler_config.json", "config.json"))
        return next((file for file in files if file.is_file()), None)

    def class_of(self, name: str, usual: Component) -> Any:
        """The class of a component: the one in the index, or else the usual one."""
        listed = self.index.get(name)
        return component_class(name, *(listed or (usual.library, usual.class_name)))


def named_base(base: str, revision: str | None) -> Base:
    """Return the base that a user names. Of a hub id, the configs are fetched.

    Args:
        base: A folder, which may hold nothing but tokenizers, or a hub id.
        revision: Branch, tag or commit of a hub id.

    Raises:
        DataError: It does not exist, or its configs are broken.
    """
    folder, commit = Path(base).expanduser(), None
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(base, revision=revision, allow_patterns=list(PATTERNS)))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"the base {base} is neither a folder nor can it be fetched: {reason}") from error
        commit = folder.name
    if not (folder / INDEX).is_file():
        return Base(base if commit else str(folder), folder, commit)
    check_model(folder, base)
    return Base(base if commit else str(folder), folder, commit, read_json(folder / INDEX))


def architecture(file: SingleFile, variant: Variant, base: Base | None = None) -> dict[str, Any]:
    """Return the config of the denoiser in a file.

    Args:
        file: The file.
        variant: The variant that it is taken for.
        base: The base that the user names.

    Raises:
        MismatchError: Variant, base and file are of different kinds.
        DataError: The file's denoiser has other sizes.
    """
    import diffusers

    family = families.family(file.variant.family)
    if variant.family != family.name:
        raise MismatchError(
            f"{file.path} holds a model of the family {family.name}, not {variant.family}; leave the name before = out"
        )
    if base and base.index and not base.index.get(family.denoiser):
        raise MismatchError(
            f"{file.path} holds a model of the family {family.name}, but the base {base.place} is a "
            f"{base.index['_class_name']}; name the model that the file was made from with --base"
        )
    path = base.config(family.denoiser) if base else None
    own = {"_class_name": family.network, **variant.architecture}
    config: dict[str, Any] = dict(read_json(path)) if path else own
    where = base.place if base and path else variant.name
    if families.of_config(config) is not family:
        raise MismatchError(
            f"{file.path} holds a model of the family {family.name}, but {where} is of another one; name the model "
            "that the file was made from with --base"
        )
    try:
        with torch.device("meta"):
            denoiser: nn.Module = getattr(diffusers, family.network).from_config(config)
    except Exception as error:  # a wrong value in a config can fail in any way
        raise DataError(f"the config of the {family.denoiser} of {where} is broken: {error}") from error
    expected = sum(tensor.numel() for tensor in denoiser.state_dict().values())
    if expected != file.parameters:
        raise DataError(
            f"the denoiser in {file.path} has {file.parameters:,} values, that of {where} {expected:,}: it is another "
            "architecture; name the diffusers folder or hub id of the model that it was made from with --base"
        )
    return config


def load_single_file(file: SingleFile, variant: Variant, named: bool, base: Base | None, dtype: torch.dtype) -> Any:
    """Load the pipeline of a single file.

    Args:
        file: The file.
        variant: The variant that it is taken for.
        named: Whether the user named the variant.
        base: The base that the user names. None: what the file lacks comes from the hub's cache.
        dtype: In which the weights are held.

    Raises:
        DataError: A component is missing, or the file does not fit the configs.
        MismatchError: Variant, base and file are of different kinds.
        UnsupportedError: The file does not say what its denoiser predicts.
    """
    import diffusers

    family = families.family(file.variant.family)
    denoiser = architecture(file, variant, base)
    known = _known()
    released = known.pipelines.get(variant.name) or known.pipelines[file.variant.name]
    usual = {name: known.components[kind] for name, kind in released.components.items()}
    lacking = [name for name in usual if name != "scheduler" and name not in file.components]
    own = [name for name in lacking if base and base.has(name)]
    other = _cached(released.hub, [name for name in lacking if name not in own])
    parts: dict[str, Any] = {}
    for name in lacking:
        source = base if name in own else other
        if source is not None and source.has(name):
            parts[name] = _component(source, name, usual[name], dtype)
        elif name in _OPTIONAL and not {"text_encoder_3"} & file.components:
            parts[name] = None
    missing = [name for name in lacking if name not in parts]
    if missing:
        nowhere = f"nor does {base.place}, nor a model in" if base else "nor does a model in"
        raise DataError(
            f"{file.path} holds no {', no '.join(missing)}, {nowhere} the hub's cache; name a diffusers folder or hub "
            f"id that does (--base {released.hub[0]}), or fetch these folders of it into the cache"
        )
    if "text_encoder_3" in parts and parts["text_encoder_3"] is None:
        log.warning("%s is used without T5, which is neither in the file nor in the base or cache", file.path)
    scheduler = _scheduler(file, usual["scheduler"], base, named)
    pipeline = getattr(diffusers, family.pipelines[0])
    with _folder(usual, released.settings, family.denoiser, denoiser, scheduler, pipeline, base) as folder:
        # What is passed is not looked for in the file, nor loaded from the folder.
        pipe = pipeline.from_single_file(
            str(file.path), config=str(folder), torch_dtype=dtype, local_files_only=True, **parts
        )
    modules: dict[str, Any] = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    for part in modules.values():
        if _is_empty(part) and hasattr(part, "shared"):  # T5 has its embeddings under two names, the file under one
            part.set_input_embeddings(part.shared)
    empty = {name for name, part in modules.items() if _is_empty(part)}
    if empty:
        raise DataError(
            f"{file.path} lacks some weights of the {' and the '.join(sorted(empty))}; download it again, or name the "
            "diffusers folder or hub id of the model that it was made from with --base"
        )
    return pipe


def _scheduler(file: SingleFile, usual: Component, base: Base | None, named: bool) -> dict[str, Any]:
    """The scheduler's config; UnsupportedError if it would be guessed what an SD2 model predicts."""
    path = base.config("scheduler") if base else None
    if path is not None:
        return dict(read_json(path))
    if file.variant.name == "sd:2.1" and file.v_prediction is None and not named:
        raise UnsupportedError(
            f"{file.path} is an SD2 model, and nothing in it says whether it predicts the noise (as the base models "
            f"of 512 pixels) or the velocity (those of 768); for the first write --model sd:2.1={file.path}, for the "
            "second name a folder or hub id whose scheduler has prediction_type v_prediction with --base"
        )
    changes: dict[str, Any] = {"prediction_type": "v_prediction"} if file.v_prediction else {}
    if file.zero_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return {"_class_name": usual.class_name, **usual.config, **changes}


@contextmanager
def _folder(
    usual: Mapping[str, Component],
    settings: Mapping[str, Any],
    name: str,
    denoiser: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    pipeline: type[Any],
    base: Base | None,
) -> Iterator[Path]:
    """A folder of configs for diffusers to read; it is removed afterwards."""
    index: dict[str, Any] = {"_class_name": pipeline.__name__, **settings}
    if base:
        index |= {key: value for key, value in base.index.items() if key in settings}
    with TemporaryDirectory(prefix="learn-to-steer-") as place:
        folder = Path(place)
        for part, component in usual.items():
            index[part] = [component.library, component.class_name]
            path = base.config(part) if base else None
            if part != "scheduler" and component.config:
                write_json(folder / part / "config.json", read_json(path) if path else dict(component.config))
        index["scheduler"] = ["diffusers", scheduler["_class_name"]]
        index[name] = ["diffusers", denoiser["_class_name"]]
        write_json(folder / "scheduler" / "scheduler_config.json", dict(scheduler))
        write_json(folder / name / "config.json", dict(denoiser))
        write_json(folder / INDEX, index)
        yield folder


def _component(base: Base, name: str, usual: Component, dtype: torch.dtype) -> Any:
    """The component ``name`` of the base."""
    settings: dict[str, Any] = {} if usual.class_name.startswith(("CLIPTok", "T5Tok")) else {"torch_dtype": dtype}
    try:
        kind = base.class_of(name, usual)
        return kind.from_pretrained(base.place, subfolder=name, revision=base.commit, **settings)
    except SteerError:
        raise
    except Exception as error:  # a broken file can fail in any way
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"the {name} of {base.place} could not be loaded: {reason}") from error


def _cached(ids: Sequence[str], needed: Sequence[str]) -> Base | None:
    """The first of some hub ids whose cached copy has all that is needed, or else the one that has most of it."""
    if not needed:
        return None
    from huggingface_hub import snapshot_download

    found = []
    for name in ids:
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (OSError, ValueError):  # not in the cache
            continue
        found.append(Base(str(folder), folder))
    return max(found, key=lambda base: sum(map(base.has, needed)), default=None)


def _is_empty(module: nn.Module) -> bool:
    """Whether some of its weights were not loaded."""
    return any(parameter.is_meta for parameter in module.parameters())


@cache
def _known() -> Known:
    found: Known = read_json(_CONFIGS, Known)
    return found
