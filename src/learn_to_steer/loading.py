"""Load a diffusers pipeline, or its denoiser without weights, from the name of a model (see ``model_names``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer import families, garbage, registry
from learn_to_steer.errors import DataError, SteerError, UnknownNameError, UnsupportedError
from learn_to_steer.families import Family, Variant
from learn_to_steer.model_configs import INDEX, PATTERNS, check_config, check_model, component_class
from learn_to_steer.model_names import PACKAGE, named_variant, package_folder
from learn_to_steer.plain_text import shown
from learn_to_steer.sampling import remember
from learn_to_steer.storage import read_json
from learn_to_steer.validation import check_fields

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Placement:
    """How the weights of a model are held.

    Raises:
        DataError: A value has the wrong type.
        UnknownNameError: A value is none of the choices.
        UnsupportedError: A package that it needs is not installed.
    """

    dtype: str | None = None
    """Name of a torch dtype: "float32", "bfloat16" or "float16". None: the model's own on a GPU, float32 on the CPU."""

    offload: str | None = None
    """"model": only the component that is running is on the GPU, the others wait on the CPU. None: all are."""

    quantize: str | None = None
    """"8bit" or "4bit" weights (extra ``quant``). None: as ``dtype`` says."""

    lora: tuple[str, ...] = ()
    """LoRA adapters by path or hub id, each followed by ":SCALE" if its scale is not 1 (extra ``lora``)."""

    revision: str | None = None
    """Branch, tag or commit of a hub id. None: the main branch."""

    def __post_init__(self) -> None:
        check_fields(self, "the placement's")
        for field, value, choices in (
            ("dtype", self.dtype, DTYPES),
            ("offload", self.offload, ("model",)),
            ("quantize", self.quantize, ("8bit", "4bit")),
        ):
            if value is not None and value not in choices:
                raise registry.unknown(field, value, choices)
        if self.quantize and find_spec("bitsandbytes") is None:
            raise UnsupportedError("quantised weights need bitsandbytes: pip install 'learn-to-steer[quant]'")
        if self.lora and find_spec("peft") is None:
            raise UnsupportedError("LoRA adapters need peft: pip install 'learn-to-steer[lora]'")


def load_pipeline(
    model: str, device: str = "cpu", placement: Placement | None = None, scheduler: str | None = None
) -> Any:
    """Load a diffusers pipeline, together with the arguments that its model is usually sampled with.

    The pipeline is diffusers' own, with its progress bar switched off. Its attribute ``steering_defaults`` holds the
    model's size, steps, guidance and other arguments, for ``pipe(prompt=prompt, **pipe.steering_defaults)``. A steered
    call uses them where the caller gives none.

    Args:
        model: A variant ("flux:emoji"; others: ``learn-to-steer list models``), a variant with weights from elsewhere
            ("sd:2.1=FOLDER"), a folder in diffusers' format, or a hub id ("owner/name"). For a folder or hub id the
            arguments are those usual in its model family.
        device: "cpu", "cuda", "cuda:1", ...; "auto" is the GPU if there is one.
        placement: How the weights are held. None: in the model's own dtype (float32 on the CPU), on ``device``.
        scheduler: Class name of a diffusers scheduler that replaces the model's own.

    Returns:
        The pipeline, on ``device``.

    Raises:
        UnknownNameError: There is no such variant or scheduler.
        DataError: Weights or adapters are missing or cannot be read.
        UnsupportedError: The device, placement or scheduler does not work on this machine or with this model.
    """
    placement, device = placement or Placement(), resolve_device(device)
    if (placement.offload or placement.quantize) and device == "cpu":
        raise UnsupportedError("--offload and --quantize are for a GPU; on the CPU leave them out")
    if scheduler is not None:
        _require_scheduler(scheduler)
    variant = named_variant(model)
    source = str(package_folder(variant.source)) if variant else model
    dtype = placement.dtype or ("float32" if device == "cpu" else _usual_dtype(source, variant, placement.revision))
    try:
        pipe = _from_pretrained(source, getattr(torch, dtype), placement, variant.shared_components if variant else {})
    except DataError as error:
        if variant and variant.note and "=" not in model:
            raise DataError(f"{error} ({model}: {variant.note}, --model {model}=FOLDER)") from error
        raise
    changes = dict(variant.scheduler) if variant else {}
    if scheduler is not None:
        changes = {"class": scheduler}
    if changes:
        pipe.scheduler = _scheduler(changes.pop("class"), pipe.scheduler.config, changes)
    pipe.set_progress_bar_config(disable=True)
    family = families.find(pipe)
    flow = any(map(_is_flow, family.schedulers))
    if scheduler is not None and scheduler not in family.schedulers and _is_flow(scheduler) != flow:
        raise UnsupportedError(
            f"{scheduler} cannot sample this model; leave --scheduler out or use one of: {', '.join(family.schedulers)}"
        )
    if placement.lora:
        _add_loras(pipe, placement.lora)
    if placement.offload:
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe = pipe.to(device)
    remember(pipe, variant or family.default_variant(pipe, model))
    garbage.loaded()
    return pipe


def resolve_device(name: str) -> str:
    """Return the name of a torch device; for "auto" that of the GPU if there is one, else "cpu".

    Raises:
        UnsupportedError: This machine has no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedError(f"the device {name!r} cannot be used: {' '.join(str(error).split())}") from error
    return name


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


def skeleton(model: str) -> tuple[Family, nn.Module]:
    """Return the family of a model, and its denoiser without weights (on torch's meta device).

    Args:
        model: As for ``load_pipeline``. Nothing is downloaded for a variant, and only a config for a hub id.

    Raises:
        UnknownNameError: There is no such variant.
        DataError: The config is missing, or no family knows the model.
    """
    import diffusers

    variant = named_variant(model)
    if variant and not variant.source.startswith(PACKAGE):
        family: Family = registry.load("families", variant.family).FAMILY
        config: dict[str, Any] = dict(variant.architecture)
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


def _from_pretrained(source: str, dtype: torch.dtype, placement: Placement, shared: Mapping[str, str]) -> Any:
    """Load the pipeline of a folder or hub id; ``shared`` are components that come from other folders."""
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
            _require_family(folder)
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


def _require_family(folder: Path) -> None:
    """Refuse a model that no family knows by its configs, before its weights are fetched.

    Raises:
        UnsupportedError: It is none of theirs.
    """
    index = read_json(folder / INDEX)
    for component in families.DENOISERS:
        path = folder / component / "config.json"
        if index.get(component) and path.is_file():
            config = read_json(path)
            if families.of_config(config) is None:
                raise families.unknown_pipeline(index["_class_name"], component, shown(config.get("_class_name")))


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
        components_to_quantize=["transformer", "unet", "text_encoder_2"],
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
