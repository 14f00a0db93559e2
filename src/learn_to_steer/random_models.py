"""Pipelines of random weights, made from configs: for what depends on the sizes of a model, but not on its weights.

Components whose config is in the model's folder are made from it. For the others there are stand-ins: a tokenizer that
reads any word as one token, text encoders of one layer, and a VAE of the size that the released models have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer import garbage, registry
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.families import Family, Variant
from learn_to_steer.loading import quiet, skeleton
from learn_to_steer.model_configs import INDEX, check_model, component_class
from learn_to_steer.model_names import is_folder, named_variant, package_folder
from learn_to_steer.placement import DTYPES, IN_FLOAT32, resolve_device, total_memory
from learn_to_steer.sampling import remember
from learn_to_steer.storage import read_json

WEIGHT_FILES = ("*.safetensors", "*.bin")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # of a pipeline's components
_START, _END, _UNKNOWN = "<start>", "<end>", "<unknown>"


def has_weights(model: str) -> bool:
    """Return whether a model has weights, as far as this machine knows; False for a folder of configs alone.

    Args:
        model: As for ``load_pipeline``.
    """
    if not is_folder(model):
        return True
    try:
        parts = [folder for folder in Path(model).expanduser().iterdir() if folder.is_dir()]
        return any(any(folder.glob(pattern)) for folder in parts for pattern in WEIGHT_FILES)
    except OSError:  # it cannot be listed; loading says why
        return True


def random_pipeline(
    model: str, device: str = "cpu", dtype: str | None = None, scheduler: str | None = None, base: str | None = None
) -> Any:
    """Make a pipeline of random weights that has the sizes of a model. Nothing is downloaded for a named variant.

    Args:
        model: As for ``load_pipeline``. A folder needs only the config of its denoiser.
        device: As for ``load_pipeline``.
        dtype: "float32", "bfloat16" or "float16". None: the model's own on a GPU, float32 on the CPU.
        scheduler: Class name of one of the family's schedulers. None: the model's own, or the usual one of the family
            where steering does not work with that.
        base: As ``Placement.base``; for a file of another architecture than the released ones.

    Returns:
        The pipeline, with the same attributes as one of ``load_pipeline``.

    Raises:
        UnknownNameError: There is no such variant, dtype or scheduler.
        DataError: A config is missing or broken.
        UnsupportedError: The weights do not fit into memory, or the device does not exist.
    """
    import diffusers

    device = resolve_device(device)
    variant = named_variant(model)
    family, empty = skeleton(model, base)
    name = dtype or ("float32" if device in IN_FLOAT32 else variant.dtype if variant else family.dtype)
    if name not in DTYPES:
        raise registry.unknown("dtype", name, DTYPES)
    if scheduler is not None and scheduler not in family.schedulers:
        raise registry.unknown("scheduler", scheduler, family.schedulers)
    _require_memory(model, empty, name, device)
    config: Any = empty.config
    with quiet(bars=True), torch.random.fork_rng(devices=[]), _default_dtype(getattr(torch, name)):
        torch.manual_seed(0)
        with torch.device(device):
            denoiser = _from_config(type(empty), config)
        parts = _components(base or model, variant, family, denoiser)
        made = parts.pop("pipeline", None) or getattr(diffusers, family.pipelines[0])
        pipe = made(**parts)
    _set_scheduler(pipe, family, scheduler)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part.eval().requires_grad_(False), device=device, dtype=getattr(torch, name))
    remember(pipe, variant or family.default_variant(pipe, model))
    garbage.loaded()
    return pipe


def _require_memory(model: str, empty: nn.Module, dtype: str, device: str) -> None:
    """Raise UnsupportedError if the weights of the denoiser are larger than the memory of the device."""
    needed = sum(parameter.numel() for parameter in empty.parameters()) * getattr(torch, dtype).itemsize
    there = total_memory(device)
    if there and needed > there:
        raise UnsupportedError(
            f"the {dtype} weights of {model} take {needed / 2**30:.1f} GiB, the memory of {device} is "
            f"{there / 2**30:.1f} GiB; use --dtype bfloat16, or name a folder of configs with fewer layers"
        )


def _components(model: str, variant: Variant | None, family: Family, denoiser: nn.Module) -> dict[str, Any]:
    """The components of the pipeline, and its class as "pipeline" if the model's folder names it."""
    import diffusers

    folder = Path(package_folder(variant.source if variant and not is_folder(model) else model)).expanduser()
    shared = variant.shared_components if variant else {}
    stand_ins = _STAND_INS[family.name](denoiser.config) if family.name in _STAND_INS else {}
    parts: dict[str, Any] = {family.denoiser: denoiser}
    if not (folder / INDEX).is_file():
        if not stand_ins:
            raise DataError(f"{model} has no {INDEX}, without which no model of the family {family.name} is made")
        return {name: make() for name, make in stand_ins.items()} | parts
    check_model(folder, model)
    index = read_json(folder / INDEX)
    parts["pipeline"] = getattr(diffusers, index["_class_name"])
    for name, value in index.items():
        if not isinstance(value, list) or name in parts:
            continue
        owner = Path(package_folder(shared[name])) if name in shared else folder
        if name in UNUSED or value[1] is None:
            parts[name] = None
        elif any((owner / name).glob("*.json")):
            parts[name] = _component(component_class(name, *value), owner, name)
        elif name in stand_ins:
            parts[name] = stand_ins[name]()
        else:
            raise DataError(f"{model} has no folder {name} with a config")
    return parts | ({"requires_safety_checker": False} if "safety_checker" in parts else {})


def _component(kind: type[Any], folder: Path, name: str) -> Any:
    """The component ``name`` of a folder: with random weights, or whole if it has none."""
    import transformers

    try:
        if issubclass(kind, transformers.PreTrainedModel):
            return kind(kind.config_class.from_pretrained(folder, subfolder=name))
        if issubclass(kind, nn.Module):
            return _from_config(kind, kind.load_config(folder, subfolder=name))  # type: ignore[attr-defined]
        return kind.from_pretrained(folder, subfolder=name)
    except Exception as error:  # a wrong value in a config can fail in any way
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"the config of the {name} in {folder} is broken: {type(error).__name__}: {reason}") from error


def _from_config(kind: type[Any], config: Mapping[str, Any]) -> Any:
    """A component of diffusers with random weights."""
    # diffusers drops what is listed as a default, changed or not.
    return kind.from_config({key: value for key, value in config.items() if key != "_use_default_values"})


def _set_scheduler(pipe: Any, family: Family, name: str | None) -> None:
    """Give the pipeline the scheduler ``name``; with None, one that works with steering."""
    import diffusers

    if name is not None or type(pipe.scheduler).__name__ not in family.schedulers:
        pipe.scheduler = getattr(diffusers, name or family.schedulers[0]).from_config(pipe.scheduler.config)


def _sd_parts(config: Any) -> dict[str, Callable[[], Any]]:
    """What makes the other components of a Stable Diffusion pipeline, from the config of its UNet."""
    from diffusers import DDIMScheduler

    return {
        "tokenizer": lambda: _tokenizer(77, f"{_START} $A {_END}"),
        "text_encoder": lambda: _clip(config.cross_attention_dim),
        "vae": lambda: _vae(config.in_channels),
        "scheduler": lambda: DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        "safety_checker": lambda: None,
        "feature_extractor": lambda: None,
        "requires_safety_checker": lambda: False,
    }


def _flux_parts(config: Any) -> dict[str, Callable[[], Any]]:
    """What makes the other components of a FLUX pipeline, from the config of its transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return {
        "tokenizer": lambda: _tokenizer(77, f"{_START} $A {_END}"),
        "tokenizer_2": lambda: _tokenizer(512, f"$A {_END}"),
        "text_encoder": lambda: _clip(config.pooled_projection_dim),
        "text_encoder_2": lambda: _t5(config.joint_attention_dim),
        "vae": lambda: _vae(config.in_channels // 4),
        "scheduler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0 if config.guidance_embeds else 1.0),
    }


# Family -> what makes the components of a pipeline, by name, from the config of its denoiser.
_STAND_INS: dict[str, Callable[[Any], dict[str, Callable[[], Any]]]] = {"sd": _sd_parts, "flux": _flux_parts}


def _tokenizer(length: int, template: str) -> Any:
    """A tokenizer that makes one token of each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {_START: 0, _END: 1, _UNKNOWN: 2}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(token, number) for token, number in known.items() if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        unk_token=_UNKNOWN,
        model_max_length=length,
    )


def _clip(width: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=3,
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=3, d_model=width, d_kv=64, d_ff=width, num_layers=1, num_heads=1))


def _vae(channels: int) -> Any:
    """A VAE of the size that Stable Diffusion and FLUX have, for latents of ``channels``."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        shift_factor=0.0,
    )


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors have ``dtype``: a model that is made in fp32 first might not fit into memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
