"""What is in a checkpoint of one file, in the layout of the model's authors, by its header alone.

Such files hold the weights of a denoiser, and often those of the VAE and the text encoders, under the names of the code
that the model was trained with. Names and shapes say which model it is. They do not say how it was distilled: a turbo
model has the header of the model that it was made from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learn_to_steer import families
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.families import Variant
from learn_to_steer.plain_text import shown
from learn_to_steer.safe_parsing import parse_json
from learn_to_steer.storage import check_regular

SUFFIX = ".safetensors"
OTHER_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".gguf")
LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors library
AGAIN = "download it again"
SAVED = "load it with diffusers, keep it as a folder (pipe.save_pretrained(FOLDER)), and name that folder"

_PREFIX = "model.diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_ENCODERS = ("cond_stage_model.", "conditioner.", "text_encoders.")
_CLIP = "transformer.text_model.embeddings.position_embedding.weight"
# Family -> component -> names of tensors, one of which is there if the file has the component. Without the component,
# diffusers would look for it in the folder of configs.
_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "sd": {"text_encoder": (f"cond_stage_model.{_CLIP}", "cond_stage_model.model.token_embedding.weight")},
    "sdxl": {
        "text_encoder": (f"conditioner.embedders.0.{_CLIP}",),
        "text_encoder_2": ("conditioner.embedders.1.model.positional_embedding",),
    },
    "sd3": {
        "text_encoder": (f"text_encoders.clip_l.{_CLIP}",),
        "text_encoder_2": (f"text_encoders.clip_g.{_CLIP}",),
        "text_encoder_3": ("text_encoders.t5xxl.transformer.shared.weight",),
    },
    "flux": {
        "text_encoder": (f"text_encoders.clip_l.{_CLIP}",),
        "text_encoder_2": ("text_encoders.t5xxl.transformer.shared.weight",),
    },
}
# Endings of tensors that hold scales of quantised weights; without these the weights would be read as wrong numbers.
_SCALES = (".scale_weight", ".weight_scale", ".input_scale", "scaled_fp8", ".absmax", ".quant_map", ".comfy_quant")
# Part of a name -> what files with such a name hold. The first that is found counts.
_OTHERS = (
    (("lora_", ".lora", "hada_w", "lokr_w"), "a LoRA: add it to its base model with --lora FILE"),
    (("control_model.", "controlnet_"), "a ControlNet, which is a part of a pipeline"),
    (("distilled_guidance_layer.",), f"Chroma: {SAVED}"),
    (("single_stream_modulation.", "double_stream_modulation"), f"FLUX.2: {SAVED}"),
    (("time_stack.", "motion_modules.", "temporal_transformer"), "a model of video"),
    (("edm_mean",), f"Playground v2.5, which has a scheduler that cannot be steered: {SAVED}"),
)
_DIFFUSERS = ("down_blocks.", "up_blocks.", "transformer_blocks.", "single_transformer_blocks.", "text_model.")


@dataclass(frozen=True)
class SingleFile:
    """What a single file holds.

    Attributes:
        path: The file.
        variant: The variant whose layout it has.
        components: Names of the pipeline's components whose weights are in it.
        parameters: Number of values in its denoiser.
        v_prediction: Whether the denoiser predicts the velocity instead of the noise; None if nothing says so.
        zero_snr: Whether the noise schedule ends at pure noise.
    """

    path: Path
    variant: Variant
    components: frozenset[str]
    parameters: int
    v_prediction: bool | None
    zero_snr: bool


def names_file(model: str) -> bool:
    """Return whether the name of a model is that of a file of weights, by its ending. A folder may have one, too."""
    path = Path(model).expanduser()
    return path.suffix.lower() in (SUFFIX, *OTHER_SUFFIXES) and not path.is_dir()


def require_file(model: str) -> Path:
    """Return the path of a single file.

    Args:
        model: A name for which ``names_file`` is true.

    Raises:
        DataError: There is no such file.
        UnsupportedError: It has a format whose header cannot be read.
    """
    path = Path(model).expanduser()
    if not path.exists():
        raise DataError(
            f"the model file {model} does not exist; name a .safetensors file, a diffusers folder or a hub id"
        )
    if path.suffix.lower() == ".gguf":
        raise UnsupportedError(
            f"{model} holds weights that GGUF quantises, which are not read; name a .safetensors file"
        )
    if path.suffix.lower() != SUFFIX:
        raise UnsupportedError(
            f"{model} is a pickled file, which may hold code; write its tensors to a .safetensors file, in Python: "
            'state = torch.load(FILE, weights_only=True); save_file(state.get("state_dict", state), '
            '"model.safetensors") with save_file of safetensors.torch, and name that file'
        )
    check_regular(path)
    return path


def inspect(path: Path) -> SingleFile:
    """Return what a file holds. Only its header is read.

    Args:
        path: A safetensors file.

    Raises:
        DataError: The file is broken, or holds no model that is known.
        UnsupportedError: It holds something that cannot be steered, or not be read from a single file.
    """
    shapes, metadata = read_header(path)
    variant = _variant(path, shapes)
    parts = _PARTS[variant.family]
    found = {name for name, keys in parts.items() if any(key in shapes for key in keys)}
    if any(name.startswith(_VAE) for name in shapes):
        found.add("vae")
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in shapes) else ""
    others = (*_VAE, *_ENCODERS, "model_ema.")
    own = [name for name in shapes if name.startswith(prefix) and not name.startswith(others)]
    marked = {"v_pred", "ztsnr"} & set(shapes)  # how fine-tunes of SDXL say it
    prediction = str(metadata.get("modelspec.prediction_type", "")).lower()
    return SingleFile(
        path,
        variant,
        frozenset(found | {families.family(variant.family).denoiser}),
        sum(math.prod(shapes[name]) for name in own if name not in marked),
        True if "v_pred" in marked or prediction.startswith("v") else False if prediction == "epsilon" else None,
        "ztsnr" in marked,
    )


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the shapes of a safetensors file's tensors by name, and its metadata. No weights are read.

    Args:
        path: The file.

    Raises:
        DataError: It is no safetensors file, or it is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 2 <= length <= min(size - 8, LARGEST_HEADER) else b""
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not text:
        raise DataError(f"{path} is not a complete {SUFFIX} file: its header is missing; {AGAIN}")
    header = parse_json(text, f"the header of {path}", AGAIN)
    entries = dict(header) if isinstance(header, dict) else {}
    metadata = entries.pop("__metadata__", None)
    try:
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in entries.items()}
        end = max(int(entry["data_offsets"][1]) for entry in entries.values())
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} is not a {SUFFIX} file: its header lists no tensors; {AGAIN}") from error
    if 8 + length + end > size:
        raise DataError(f"{path} is cut short: it has {size} bytes of {8 + length + end}; {AGAIN}")
    return shapes, metadata if isinstance(metadata, dict) else {}


def _variant(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Variant:
    """The variant whose denoiser has these tensors."""
    if any(name.endswith(_SCALES) for name in shapes):
        raise UnsupportedError(
            f"{path} holds quantised weights, which are not read; name a file of 16 or 32 bits and, if it is too "
            "large, --offload model"
        )
    bare = {name.removeprefix(_PREFIX): shape for name, shape in shapes.items()}
    for marks, what in _OTHERS:
        if any(mark in name for name in bare for mark in marks if not name.startswith(_ENCODERS)):
            raise UnsupportedError(f"{path} holds {what}")
    if any(name.startswith(_DIFFUSERS) for name in bare):
        raise UnsupportedError(
            f"{path} holds one component in the format of diffusers; name the folder that has its model_index.json"
        )
    if "joint_blocks.0.context_block.adaLN_modulation.1.bias" in bare:
        large = "joint_blocks.37.x_block.mlp.fc1.weight" in bare
        dual = any(".x_block.attn2." in name for name in bare)
        return families.resolve("sd3.5:large" if large else "sd3.5:medium" if dual else "sd3:medium")
    if "double_blocks.0.img_attn.norm.key_norm.scale" in bare:
        _require_latents(path, bare, "img_in.weight", "final_layer.linear.weight", "Fill or Control")
        return families.resolve("flux:dev" if any("guidance_in." in name for name in bare) else "flux:schnell")
    if "input_blocks.0.0.weight" in bare:
        return _unet_variant(path, bare)
    raise UnsupportedError(
        f"{path} has the layout of none of SD1, SD2, SDXL, SD3 and FLUX.1 (its first tensor is "
        f"{shown(next(iter(shapes)))}); {SAVED}"
    )


def _unet_variant(path: Path, bare: Mapping[str, tuple[int, ...]]) -> Variant:
    """The variant whose UNet has these tensors."""
    _require_latents(path, bare, "input_blocks.0.0.weight", "out.2.weight", "inpainting, depth, upscaling or editing")
    if any(name.startswith("conditioner.embedders.0.model.") for name in bare):
        raise UnsupportedError(f"{path} holds SDXL's refiner, which cannot be steered; name the file of a base model")
    if any(name.startswith("label_emb.") for name in bare):
        return families.resolve("sdxl:base")
    width = next((shape[-1] for name, shape in bare.items() if name.endswith("attn2.to_k.weight")), 0)
    open_clip = any(name.startswith("cond_stage_model.model.") for name in bare)
    return families.resolve("sd:2.1" if open_clip or width == 1024 else "sd:1.4")


def _require_latents(path: Path, bare: Mapping[str, tuple[int, ...]], first: str, last: str, what: str) -> None:
    """Refuse a denoiser that is fed more channels than it predicts."""
    fed, predicted = bare[first][1:2], bare.get(last, (0,))[:1]
    if fed != predicted:
        raise UnsupportedError(
            f"{path} holds a model for {what}: it is fed {fed[0] if fed else 0} channels but predicts "
            f"{predicted[0]}, so it cannot be steered; name the file of a text-to-image model"
        )
