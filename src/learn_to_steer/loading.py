"""From a model's name to a diffusers pipeline: a variant, a local folder, or a hub id."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer import families, registry
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.families import Family, Variant
from learn_to_steer.sampling import remember
from learn_to_steer.storage import is_hub_id, read_json

PACKAGE = "package:"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Placement:
    """How weights are held.

    Raises:
        UnknownNameError: A value that is none of the choices.
        UnsupportedError: The package that it needs is not installed.
    """

    dtype: str | None = None
    """A dtype of torch by name: "float32", "bfloat16" or "float16". None: the variant's own, fp32 on the CPU."""

    offload: str | None = None
    """"model": keep only the part that is running on the GPU."""

    quantize: str | None = None
    """"8bit" or "4bit" weights (extra ``quant``)."""

    lora: tuple[str, ...] = ()
    """Adapters by path or hub id, each with ":scale" if the scale is not 1 (extra ``lora``)."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("dtype", self.dtype, DTYPES),
            ("offload", self.offload, ("model",)),
            ("quantize", self.quantize, ("8bit", "4bit")),
        ):
            if value is not None and value not in choices:
                raise registry.unknown(what, value, choices)
        if self.quantize and find_spec("bitsandbytes") is None:
            raise UnsupportedError("quantised weights need bitsandbytes: pip install 'learn-to-steer[quant]'")
        if self.lora and find_spec("peft") is None:
            raise UnsupportedError("LoRA adapters need peft: pip install 'learn-to-steer[lora]'")


def load_pipeline(
    model: str, device: str = "cpu", placement: Placement | None = None, scheduler: str | None = None
) -> Any:
    """Load a diffusers pipeline that knows how its model is sampled.

    The pipeline is diffusers' own, with its progress bar switched off. ``pipe.steering_defaults`` holds the size,
    steps, guidance and other arguments of this model, for ``pipe(prompt, **pipe.steering_defaults)``; a steered call
    fills them in by itself.

    Args:
        model: A variant ("flux:emoji"; others: ``learn-to-steer list models``), a variant with weights from elsewhere
            ("sd:2.1=FOLDER"), a folder in diffusers' format, or a hub id ("owner/name"). A folder or hub id is sampled
            as its family usually is.
        device: "cpu", "cuda", "cuda:1", ...; "auto" is the GPU if there is one.
        placement: How the weights are held. None: in the model's own dtype (fp32 on the CPU), on ``device``.
        scheduler: Class name of a diffusers scheduler that replaces the model's own.

    Returns:
        The pipeline, on ``device``.

    Raises:
        UnknownNameError: There is no such variant or scheduler.
        DataError: Weights or adapters are missing or cannot be read.
        UnsupportedError: This machine or this model cannot have the device, placement or scheduler.
    """
    placement, device = placement or Placement(), resolve_device(device)
    if (placement.offload or placement.quantize) and device == "cpu":
        raise UnsupportedError("--offload and --quantize are for a GPU; on the CPU leave them out")
    variant = named_variant(model)
    source = str(package_folder(variant.source)) if variant else model
    kept = placement.dtype or ("float32" if device == "cpu" else _usual_dtype(source, variant, placement.revision))
    try:
        pipe = _from_pretrained(source, getattr(torch, kept), placement, variant.shared_components if variant else {})
    except DataError as error:
        if variant and variant.note and "=" not in model:
            raise DataError(f"{error} ({model}: {variant.note}, --model {model}=FOLDER)") from error
        raise
    wanted = dict(variant.scheduler) if variant else {}
    if scheduler is not None:
        wanted = {"class": scheduler}
    if wanted:
        pipe.scheduler = _scheduler(wanted.pop("class"), pipe.scheduler.config, wanted)
    pipe.set_progress_bar_config(disable=True)
    family = families.find(pipe)
    if scheduler is not None and (_flows(scheduler) != _flows(family.schedulers[0])):
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
    return pipe


def classifier_source(variant: Variant) -> Path | str:
    """Return the folder or hub id of the classifier that comes with ``variant``.

    Raises:
        DataError: None comes with it, or it is not in this copy.
    """
    if variant.classifier is not None:
        return package_folder(variant.classifier)
    raise DataError(
        f"no classifier comes with {variant.name}: convert one of the paper's authors (learn-to-steer import-official "
        "FILE.pth --model ... --out DIR) or train one (learn-to-steer collect, then train), then name its folder: "
        "--classifier DIR, or Steerer.from_pretrained(DIR) in Python"
    )


def resolve_device(name: str) -> str:
    """Return a device that works: "auto" is the GPU if there is one.

    Raises:
        UnsupportedError: The device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedError(f"the device {name!r} cannot be used: {' '.join(str(error).split())}") from error
    return name


def _flows(scheduler: str) -> bool:
    return "Flow" in scheduler


def _usual_dtype(source: str, variant: Variant | None, revision: str | None) -> str:
    """In which dtype a model is held on a GPU: FLUX in fp32 would fill one twice."""
    return variant.dtype if variant else _read_config(source, revision)[0].dtype


def _add_loras(pipe: Any, adapters: Sequence[str]) -> None:
    """Load and switch on adapters, each "PATH" or "PATH:SCALE"."""
    scales = {}
    for number, adapter in enumerate(adapters):
        path, _, scale = adapter.rpartition(":")
        try:
            weight = float(scale) if path else 1.0
        except ValueError:  # a colon of the path's own
            path, weight = "", 1.0
        if not math.isfinite(weight):
            raise DataError(f"the scale of the LoRA {path} must be a number, not {scale}")
        scales[f"lora{number}"] = weight
        try:
            pipe.load_lora_weights(path or adapter, adapter_name=f"lora{number}")
            # At once, for weights of another kind of model load without a word and leave no adapter.
            pipe.set_adapters(list(scales), list(scales.values()))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"the LoRA {path or adapter} could not be loaded on this model: {reason}") from error


def skeleton(model: str) -> tuple[Family, nn.Module]:
    """Return the family of a model, and its denoiser without weights (on torch's meta device).

    Args:
        model: As for ``load_pipeline``. The architecture of a variant is known; of a folder or hub id only the configs
            are read.

    Raises:
        UnknownNameError: There is no such variant.
        DataError: The configs are missing, or no family knows the model.
    """
    import diffusers

    variant = named_variant(model)
    if variant and not variant.source.startswith(PACKAGE):
        family: Family = registry.load("families", variant.family).FAMILY
        config: dict[str, Any] = dict(variant.architecture)
    else:
        source = str(package_folder(variant.source)) if variant else model
        family, config = _read_config(source)
    with torch.device("meta"):
        denoiser: nn.Module = getattr(diffusers, family.network).from_config(config)
    return family, denoiser


def _read_config(source: str, revision: str | None = None) -> tuple[Family, dict[str, Any]]:
    import diffusers

    folder = Path(source).expanduser()
    place = str(folder) if folder.is_dir() else source
    tried = []
    for name in registry.names("families"):
        family: Family = registry.load("families", name).FAMILY
        try:
            with _quiet():
                config = getattr(diffusers, family.network).load_config(
                    place, subfolder=family.denoiser, revision=revision
                )
        except (OSError, ValueError) as error:
            tried.append(" ".join(str(error).split()))
            continue
        if config.get("_class_name") == family.network:
            return family, dict(config)
    raise DataError(f"no model family knows {source}" + (f" ({tried[0]})" if tried else ""))


def package_folder(source: str) -> Path | str:
    """The folder behind ``package:IMPORT_NAME/FOLDER``; any other source unchanged.

    Raises DataError when that package is not installed or has no weights there.
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
    """Return the hub id that the weights of ``model`` come from; "" if they come from elsewhere."""
    variant = written_variant(model)
    source = variant.source if variant else model
    return source if is_hub_id(source) and not is_folder(source) else ""


def written_variant(model: str) -> Variant | None:
    """Return the variant in ``model``, "sd:2.1" or with weights from elsewhere "sd:2.1=FOLDER"; None if it is none."""
    name, equals, place = model.partition("=")
    variant = families.variants().get(name)
    if variant is None or (equals and not place):
        return None
    # The facts of a variant, the weights from elsewhere: they may draw what its detector has never seen.
    return replace(variant, source=place, detector=None) if place else variant


def named_variant(model: str) -> Variant | None:
    """Return the variant that ``model`` names ("sd:2.1", or "sd:2.1=FOLDER" with weights from elsewhere).

    Returns:
        The variant; None for a folder or a hub id.

    Raises:
        UnknownNameError: ``model`` is none of the three.
        DataError: The folder does not exist.
    """
    variant = written_variant(model)
    if variant is not None:
        place = variant.source
        if "=" in model and not (is_folder(place) or is_hub_id(place)):
            raise DataError(
                f"the model folder {place} does not exist; name a diffusers folder or a hub id after {variant.name}="
            )
        return variant
    if not model.strip():
        raise DataError("no model is named; name a variant, a diffusers folder or a hub id")
    if is_folder(model):
        return None
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise DataError(f"the model folder {model} does not exist; name a diffusers folder, a hub id or a variant")
    if "/" not in model:
        raise families.unknown_model(model)
    return None


def is_folder(place: str) -> bool:
    """Return whether ``place`` is a folder on this machine; "~" is the user's home."""
    return Path(place).expanduser().is_dir()


def _from_pretrained(source: str, dtype: torch.dtype, placement: Placement, shares: Mapping[str, str]) -> Any:
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
                revision=placement.revision,
                quantization_config=_quantization(placement.quantize, dtype),
                safety_checker=None,
                requires_safety_checker=False,
                **{name: _part(path, name, package_folder(owner), dtype) for name, owner in shares.items()},
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the model {source} could not be loaded: {reason}") from error


def _part(folder: Path, name: str, owner: Path | str, dtype: torch.dtype) -> Any:
    """The part ``name`` of the pipeline in ``folder``, read from ``owner``'s folder."""
    module, kind = read_json(folder / "model_index.json")[name]
    weights = {} if "Tokenizer" in kind else {"torch_dtype": dtype}
    return getattr(import_module(module), kind).from_pretrained(owner, subfolder=name, **weights)


def _quantization(bits: str | None, dtype: torch.dtype) -> Any:
    """Diffusers' config that quantises the large parts of a pipeline, those it has."""
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


def _scheduler(name: str, config: Any, changes: dict[str, Any]) -> Any:
    import diffusers

    choices = [known for known in dir(diffusers) if known.endswith("Scheduler") and not known.startswith("Flax")]
    if name not in choices:
        near = registry.nearest(name, choices)
        raise registry.unknown("scheduler", name, [near] if near else ["DDIMScheduler"])
    with _quiet():
        return getattr(diffusers, name).from_config({**config, **changes})


@contextmanager
def _quiet(bars: bool = False) -> Iterator[None]:
    """No warnings of the model libraries inside, and no progress ``bars``; errors still show."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = [(library, library.get_verbosity()) for library in (diffusers_logging, transformers_logging)]
    shown = [library.is_progress_bar_enabled() for library, _ in before]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for library, _ in before:
                library.set_verbosity_error()
                if not bars:
                    library.disable_progress_bar()
            yield
        finally:
            for (library, level), bar in zip(before, shown, strict=True):
                library.set_verbosity(level)
                if bar:
                    library.enable_progress_bar()
