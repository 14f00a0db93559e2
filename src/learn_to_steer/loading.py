"""Load a diffusers pipeline, or its denoiser without weights, from the name of a model (see ``model_names``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer import families, garbage, registry
from learn_to_steer.errors import DataError, SteerError, UnknownNameError, UnsupportedError
from learn_to_steer.families import Family, Variant
from learn_to_steer.footprint import require_memory
from learn_to_steer.model_configs import INDEX, PATTERNS, check_config, check_model, component_class
from learn_to_steer.model_names import PACKAGE, named_variant, package_folder
from learn_to_steer.placement import IN_FLOAT32, QUANTIZED, Placement, resolve_device
from learn_to_steer.plain_text import shown
from learn_to_steer.sampling import remember
from learn_to_steer.single_file_pipelines import architecture, load_single_file, named_base
from learn_to_steer.single_files import inspect, names_file, require_file
from learn_to_steer.storage import read_json


def load_pipeline(
    model: str,
    device: str = "cpu",
    placement: Placement | None = None,
    scheduler: str | None = None,
    *,
    steered: bool = False,
) -> Any:
    """Load a diffusers pipeline, together with the arguments that its model is usually sampled with.

    The pipeline is diffusers' own, with its progress bar switched off. Its attribute ``steering_defaults`` holds the
    model's size, steps, guidance and other arguments, for ``pipe(prompt=prompt, **pipe.steering_defaults)``. A steered
    call uses them where the caller gives none.

    Args:
        model: A variant ("flux:emoji"; others: ``learn-to-steer list models``), a variant with weights from elsewhere
            ("sd:2.1=FOLDER"), a folder in diffusers' format, a hub id ("owner/name"), or a file of weights
            ("FILE.safetensors", "sdxl:turbo=FILE.safetensors"). Where no variant is named, the arguments are those
            usual in the model's family.
        device: "cpu", "cuda", "cuda:1", "mps" (untested), ...; "auto" is the CUDA GPU if there is one.
        placement: How the weights are held. None: in the model's own dtype (float32 on the CPU and on "mps"), on
            ``device``.
        scheduler: Class name of a diffusers scheduler that replaces the model's own.
        steered: Whether the pipeline is to be steered: a scheduler with which it cannot be is then refused before any
            weights are fetched.

    Returns:
        The pipeline, on ``device``.

    Raises:
        UnknownNameError: There is no such variant or scheduler.
        DataError: Weights or adapters are missing or cannot be read.
        UnsupportedError: The device, placement or scheduler does not work on this machine or with this model.
    """
    placement, device = placement or Placement(), resolve_device(device)
    if (placement.offload or placement.quantize) and device in IN_FLOAT32:
        raise UnsupportedError(f"--offload and --quantize are for a CUDA GPU; with --device {device} leave them out")
    if scheduler is not None:
        _require_scheduler(scheduler)
    variant = named_variant(model)
    source = str(package_folder(variant.source)) if variant else model
    if names_file(source):
        return _finished(
            _from_single_file(source, variant, placement, device), model, variant, device, placement, scheduler
        )
    if placement.base:
        raise UnsupportedError("--base is for a model of one file (--model FILE.safetensors); leave it out")
    dtype = placement.dtype or (
        "float32" if device in IN_FLOAT32 else _usual_dtype(source, variant, placement.revision)
    )
    try:

        def check(folder: Path) -> None:
            usual = variant.scheduler.get("class") if variant else None
            _require_usable(folder, scheduler, usual, steered)
            if not Path(source).expanduser().is_dir():
                require_memory(folder, source, dtype, placement, device)

        shared = variant.shared_components if variant else {}
        pipe = _from_pretrained(source, getattr(torch, dtype), placement, shared, check)
    except DataError as error:
        if variant and variant.note and "=" not in model:
            raise DataError(f"{error} ({model}: {variant.note}, --model {model}=FOLDER)") from error
        raise
    return _finished(pipe, model, variant, device, placement, scheduler)


def _finished(
    pipe: Any, model: str, variant: Variant | None, device: str, placement: Placement, scheduler: str | None
) -> Any:
    """The pipeline with its scheduler and adapters, on its device."""
    changes = dict(variant.scheduler) if variant else {}
    if scheduler is not None:
        changes = {"class": scheduler}
    if changes:
        pipe.scheduler = _scheduler(changes.pop("class"), pipe.scheduler.config, changes)
    pipe.set_progress_bar_config(disable=True)
    family = families.find(pipe)
    if scheduler is not None:
        _require_same_kind(scheduler, family)
    if placement.lora:
        _add_loras(pipe, placement.lora)
    if placement.offload:
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe = pipe.to(device)
    remember(pipe, variant or family.default_variant(pipe, model))
    garbage.loaded()
    return pipe


def _require_same_kind(scheduler: str, family: Family) -> None:
    """Refuse a scheduler for flow matching of a model that was trained otherwise, and the reverse."""
    flow = any(map(_is_flow, family.schedulers))
    if scheduler not in family.schedulers and _is_flow(scheduler) != flow:
        raise UnsupportedError(
            f"{scheduler} cannot sample this model; leave --scheduler out or use one of: {', '.join(family.schedulers)}"
        )


def _is_flow(scheduler: str) -> bool:
    """Whether a scheduler, by its class name, is one for flow matching."""
    return "Flow" in scheduler


def _usual_dtype(source: str, variant: Variant | None, revision: str | None) -> str:
    """The dtype in which a model is held on a GPU. A model may be too large for float32, as FLUX is."""
    return variant.dtype if variant else _read_config(source, revision)[0].dtype


def _add_loras(pipe: Any, adapters: Sequence[str]) -> None:
    """Load adapters, each "PATH" or "PATH:SCALE", and activate them."""
    scales = {}
    for number, adapter in enumerate(adapters):
        path, _, scale = adapter.rpartition(":")
        try:
            weight = float(scale) if path else 1.0
        except ValueError:  # the colon is part of the path
            path, weight = "", 1.0
        if not math.isfinite(weight):
            raise DataError(f"the scale of the LoRA {path} must be a number, not {scale}")
        scales[f"lora{number}"] = weight
        try:
            pipe.load_lora_weights(path or adapter, adapter_name=f"lora{number}")
            # Fails for weights of another kind of model, which load without an error but leave no adapter.
            pipe.set_adapters(list(scales), list(scales.values()))
        except Exception as error:  # a file of another kind can fail in any way
            reason = _reason(error)[:300]
            raise DataError(f"the LoRA {path or adapter} could not be loaded on this model: {reason}") from error


def skeleton(model: str, base: str | None = None) -> tuple[Family, nn.Module]:
    """Return the family of a model, and its denoiser without weights (on torch's meta device).

    Args:
        model: As for ``load_pipeline``. Nothing is downloaded for a variant, and only a config for a hub id.
        base: As ``Placement.base``.

    Raises:
        UnknownNameError: There is no such variant.
        DataError: The config is missing, or no family knows the model.
    """
    import diffusers

    variant = named_variant(model)
    if names_file(source := variant.source if variant else model):
        file = inspect(require_file(source))
        family: Family = families.family(file.variant.family)
        with quiet():
            config = architecture(file, variant or file.variant, named_base(base, None) if base else None)
    elif variant and not variant.source.startswith(PACKAGE):
        family = registry.load("families", variant.family).FAMILY
        config = dict(variant.architecture)
    else:
        source = str(package_folder(variant.source)) if variant else model
        family, config = _read_config(source)
    try:
        with quiet(), torch.device("meta"):
            denoiser: nn.Module = getattr(diffusers, family.network).from_config(config)
    except Exception as error:  # a wrong value in a config can fail in any way
        raise DataError(f"the config of the {family.denoiser} of {model} is broken: {_reason(error)}") from error
    return family, denoiser


def _read_config(source: str, revision: str | None = None) -> tuple[Family, dict[str, Any]]:
    """The family of a folder or hub id, and the config of its denoiser."""
    import diffusers

    folder = Path(source).expanduser()
    location = str(folder) if folder.is_dir() else source
    reasons = []
    networks = {plugin.FAMILY.denoiser: plugin.FAMILY.network for plugin in registry.load_all("families").values()}
    for component, network in networks.items():
        try:
            with quiet():  # the class does not matter
                config = getattr(diffusers, network).load_config(location, subfolder=component, revision=revision)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            reasons.append(" ".join(str(error).split()))
            continue
        check_config(config, f"the config of the {component} of {source}")
        if family := families.of_config(config):
            return family, dict(config)
        reasons.insert(0, f"its {component} is a {shown(config.get('_class_name'))} that is none of theirs")
    known = ", ".join(registry.names("families"))
    raise DataError(f"no model family knows {source} ({reasons[0]}); families: {known}")


def _from_pretrained(
    source: str, dtype: torch.dtype, placement: Placement, shared: Mapping[str, str], check: Callable[[Path], None]
) -> Any:
    """Load the pipeline of a folder or hub id.

    Args:
        source: The folder or hub id.
        dtype: In which the weights are held.
        placement: How they are held.
        shared: Components that come from other folders.
        check: Raises an error by the configs alone, before weights are fetched.
    """
    path = Path(source).expanduser()
    if path.is_dir() and not (path / INDEX).is_file():
        raise DataError(f"{source} is not a diffusers pipeline: it has no model_index.json")
    try:
        # The progress bar of a download is shown: it may take minutes.
        with quiet(bars=not path.is_dir()):
            # Imported inside quiet, because transformers warns on import.
            from diffusers import DiffusionPipeline

            folder = path if path.is_dir() else _download_configs(source, placement.revision)
            check_model(folder, source)
            check(folder)
            return DiffusionPipeline.from_pretrained(
                str(path) if path.is_dir() else source,
                torch_dtype=dtype,
                # The commit whose configs were checked: a branch may have moved since.
                revision=placement.revision if path.is_dir() else folder.name,
                quantization_config=_quantization(placement.quantize, dtype),
                trust_remote_code=False,
                safety_checker=None,
                requires_safety_checker=False,
                **{name: _component(path, name, package_folder(owner), dtype) for name, owner in shared.items()},
            )
    except SteerError:
        raise
    except Exception as error:  # a wrong value in a config, or a broken file, can fail in any way
        raise DataError(f"the model {source} could not be loaded: {_reason(error)}") from error


def _from_single_file(source: str, variant: Variant | None, placement: Placement, device: str) -> Any:
    """Load the pipeline of a single file."""
    file = inspect(require_file(source))
    if placement.quantize:
        raise UnsupportedError(
            f"--quantize is not for a model of one file; write {source} to a folder once, in Python: "
            'load_pipeline(FILE, placement=Placement(dtype="bfloat16")).save_pretrained(FOLDER), and name that folder'
        )
    kind = variant or file.variant
    dtype = placement.dtype or ("float32" if device in IN_FLOAT32 else kind.dtype)
    try:
        with quiet():
            base = named_base(placement.base, placement.revision) if placement.base else None
            return load_single_file(file, kind, variant is not None, base, getattr(torch, dtype))
    except SteerError:
        raise
    except Exception as error:  # weights of other shapes can fail in any way
        raise DataError(f"the model file {source} could not be loaded: {_reason(error)}") from error


def _require_usable(folder: Path, scheduler: str | None, usual: str | None, steered: bool) -> None:
    """Refuse a model that no family knows by its configs, or a scheduler that does not work with it.

    Args:
        folder: The folder of the configs.
        scheduler: Class name of the scheduler that the user names.
        usual: Class name of the one that its variant names.
        steered: Whether the scheduler must work with steering.

    Raises:
        UnsupportedError: It is none of theirs, or the scheduler does not work.
    """
    index = read_json(folder / INDEX)
    for component in families.DENOISERS:
        path = folder / component / "config.json"
        if index.get(component) and path.is_file():
            config = read_json(path)
            family = families.of_config(config)
            if family is None:
                raise families.unknown_pipeline(index["_class_name"], component, shown(config.get("_class_name")))
            if scheduler is not None:
                _require_same_kind(scheduler, family)
            name = scheduler or usual or (index.get("scheduler") or [None, None])[1]
            if steered and name:
                family.require_scheduler(name)


def _download_configs(source: str, revision: str | None) -> Path:
    """The folder of a hub id's configs in the cache; it is named after the commit."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=revision, allow_patterns=list(PATTERNS)))


def _reason(error: Exception) -> str:
    """An exception of another library in one line."""
    text = " ".join(str(error).split())[:600]
    return text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__}: {text}"


def _component(folder: Path, name: str, owner: Path | str, dtype: torch.dtype) -> Any:
    """The component ``name`` of the pipeline in ``folder``, loaded from ``owner``, a folder that has it."""
    module, class_name = read_json(folder / INDEX)[name]  # checked by then
    settings = {} if "Tokenizer" in class_name else {"torch_dtype": dtype}
    return component_class(name, module, class_name).from_pretrained(owner, subfolder=name, **settings)


def _quantization(bits: str | None, dtype: torch.dtype) -> Any:
    """The diffusers config that quantises the large components of a pipeline; None for no quantisation."""
    if bits is None:
        return None
    from diffusers import PipelineQuantizationConfig

    settings: dict[str, Any] = {"load_in_8bit": True}
    if bits == "4bit":
        settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return PipelineQuantizationConfig(
        quant_backend=f"bitsandbytes_{bits}",
        quant_kwargs=settings,
        components_to_quantize=list(QUANTIZED),
    )


def _require_scheduler(name: str) -> None:
    """Refuse a name that is no scheduler's, before weights are fetched."""
    import diffusers

    choices = [choice for choice in dir(diffusers) if choice.endswith("Scheduler") and not choice.startswith("Flax")]
    if name not in choices:
        near = registry.nearest(name, choices)
        meant = f"did you mean {near!r}?" if near else "see: learn-to-steer list schedulers"
        raise UnknownNameError(f"unknown scheduler {name!r}; {meant}")


def _scheduler(name: str, config: Any, changes: dict[str, Any]) -> Any:
    """A scheduler of the class ``name`` with the config of another one and ``changes`` to it."""
    import diffusers

    if _is_flow(name) and config.get("use_flow_sigmas"):  # the same schedule has another name there
        changes = {"shift": config["flow_shift"], **changes}
    with quiet():
        return getattr(diffusers, name).from_config({**config, **changes})


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Hide warnings of the model libraries inside the context; errors still show.

    Args:
        bars: Whether to show their progress bars.
    """
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = [(library, library.get_verbosity()) for library in (diffusers_logging, transformers_logging)]
    bars_before = [library.is_progress_bar_enabled() for library, _ in before]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for library, _ in before:
                library.set_verbosity_error()
                if not bars:
                    library.disable_progress_bar()
            yield
        finally:
            for (library, level), bar in zip(before, bars_before, strict=True):
                library.set_verbosity(level)
                if bar:
                    library.enable_progress_bar()
