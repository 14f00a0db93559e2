"""Where and how the weights of a model are held: device, number format, adapters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from learn_to_steer import processes, registry
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.validation import check_fields

DTYPES = ("float32", "bfloat16", "float16")
IN_FLOAT32 = ("cpu", "mps")
"""Devices on which weights are float32 unless the user says otherwise: others may be missing in some operations."""
QUANTIZED = ("transformer", "unet", "text_encoder_2")
"""Names of the components that ``Placement.quantize`` quantises."""


@dataclass(frozen=True)
class Placement:
    """How the weights of a model are held.

    Raises:
        DataError: A value has the wrong type.
        UnknownNameError: A value is none of the choices.
        UnsupportedError: A package that it needs is not installed.
    """

    dtype: str | None = None
    """Name of a torch dtype: "float32", "bfloat16" or "float16". None: the model's own on a CUDA GPU, else float32."""

    offload: str | None = None
    """"model": only the component that is running is on the GPU, the others wait on the CPU. None: all are."""

    quantize: str | None = None
    """"8bit" or "4bit" weights (extra ``quant``). None: as ``dtype`` says."""

    lora: tuple[str, ...] = ()
    """LoRA adapters by path or hub id, each followed by ":SCALE" if its scale is not 1 (extra ``lora``)."""

    revision: str | None = None
    """Branch, tag or commit of a hub id. None: the main branch."""

    base: str | None = None
    """For a model of one file: the folder or hub id, in diffusers' format, of the model that the file was made from.
    Tokenizers come from there, what else the file lacks, and all configs. A folder of tokenizers is enough where the
    file lacks nothing else. None: the tokenizers are those in the hub's cache."""

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


def resolve_device(name: str) -> str:
    """Return the name of a torch device; for "auto" that of the GPU if there is one, else "cpu".

    Raises:
        UnsupportedError: This machine has no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise UnsupportedError("the device 'mps' cannot be used: this machine has no GPU of Apple, or torch lacks it")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedError(f"the device {name!r} cannot be used: {' '.join(str(error).split())}") from error
    return name


def total_memory(device: str) -> int:
    """Return all memory of a device in bytes, on the CPU with the swap space; 0 if it is not known.

    Args:
        device: "cpu", "cuda", "cuda:1" or "mps", whose memory is that of the CPU.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return 0
    return pages + processes.swap_space()


def free_memory(device: str) -> int:
    """Return the memory of a device that is free now, in bytes; 0 if it is not known.

    Args:
        device: As for ``total_memory``.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return processes.free_memory() or 0
