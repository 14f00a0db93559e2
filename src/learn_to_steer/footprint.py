"""How much memory the weights of a model take, by its configs alone, before they are fetched.

The networks are built on torch's meta device, which takes no memory. Only what cannot fit is refused: weights that are
larger than all memory there is. What is free now may change, so for that there is a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.model_configs import INDEX, component_class
from learn_to_steer.placement import QUANTIZED, Placement, free_memory, total_memory
from learn_to_steer.storage import read_json

_NEVER_LOADED = ("safety_checker",)
_BITS = {"8bit": 8, "4bit": 4}  # of a quantised value
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _How:
    """How weights are held, in the names of the command line's options."""

    dtype: str
    offload: str | None
    quantize: str | None


def require_memory(folder: Path, source: str, dtype: str, placement: Placement, device: str) -> None:
    """Refuse a model whose weights are larger than the memory that they would be in, and warn if less is free.

    Args:
        folder: The model's folder, or one with only its configs.
        source: What the user calls the model, for messages.
        dtype: Name of the dtype of weights that are not quantised.
        placement: How the weights would be held.
        device: Name of the device.

    Raises:
        UnsupportedError: They are larger. The message names settings with which they fit, if there are any.
    """
    try:
        counts = parameters(folder)
    except Exception:  # a config of an unusual kind; loading says what is wrong with it, if anything is
        log.debug("the weights of %s cannot be counted by its configs", source, exc_info=True)
        return
    how = _How(dtype, placement.offload, placement.quantize)
    needs = _needs(counts, how, device)
    for place, needed in needs.items():
        total = total_memory(place)
        if total and needed > total:
            raise UnsupportedError(
                f"the weights of {source} take {_gib(needed)} of the memory of {place}, which is {_gib(total)} in all; "
                f"{_advice(counts, how, device)}"
            )
    for place, needed in needs.items():
        free = free_memory(place)
        if free and needed > free:
            log.warning(
                "the weights of %s take %s of the memory of %s, of which %s are free now",
                *(source, _gib(needed), place, _gib(free)),
            )


def parameters(folder: Path) -> dict[str, int]:
    """Return the number of parameters of each component, by the configs in a model's folder.

    Args:
        folder: The folder. Its configs were checked (``model_configs.check_model``).
    """
    index = read_json(folder / INDEX)
    counts = {}
    for name, value in index.items():
        if isinstance(value, list) and value[1] is not None and name not in _NEVER_LOADED:
            kind = component_class(name, *value)
            if issubclass(kind, nn.Module):
                counts[name] = sum(parameter.numel() for parameter in _empty(kind, folder, name).parameters())
    return counts


def _empty(kind: Any, folder: Path, name: str) -> nn.Module:
    """A component on the meta device."""
    import diffusers

    with torch.device("meta"):
        made: nn.Module
        if issubclass(kind, diffusers.ModelMixin):
            made = kind.from_config(kind.load_config(folder, subfolder=name))
        else:
            made = kind(kind.config_class.from_pretrained(folder, subfolder=name))
    return made


def _needs(counts: Mapping[str, int], how: _How, device: str) -> dict[str, int]:
    """The bytes that are needed in the memory of each device."""
    bits = {name: 8 * getattr(torch, how.dtype).itemsize for name in counts}
    if how.quantize:
        bits |= {name: _BITS[how.quantize] for name in QUANTIZED if name in bits}
    sizes = {name: count * bits[name] // 8 for name, count in counts.items()}
    if how.offload:
        return {device: max(sizes.values(), default=0), "cpu": sum(sizes.values())}
    return {device: sum(sizes.values())}


def _advice(counts: Mapping[str, int], how: _How, device: str) -> str:
    """The first settings with which the weights fit, as a part of a sentence."""
    for other in _smaller(how, device):
        needs = _needs(counts, other, device)
        if all(needed <= (total_memory(place) or needed) for place, needed in needs.items()):
            changes = {name: value for name, value in asdict(other).items() if value != getattr(how, name)}
            return f"they fit with {' '.join(f'--{name} {value}' for name, value in changes.items())}"
    return "they do not fit here with any setting; use a machine with more memory, or a smaller model"


def _smaller(how: _How, device: str) -> Iterator[_How]:
    """Ways to hold the weights in less memory, those that cost the least first."""
    narrow = replace(how, dtype="bfloat16" if how.dtype == "float32" else how.dtype)
    yield narrow
    if device.startswith("cuda"):
        yield replace(narrow, offload="model")
        for bits in ("8bit", "4bit"):
            yield replace(narrow, quantize=bits)
            yield replace(narrow, quantize=bits, offload="model")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
