"""A compiled denoiser, run eagerly for the length of a call: its maps and their gradients need the plain modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

DENOISERS = ("unet", "transformer")


@contextmanager
def eager(pipe: Any) -> Iterator[None]:
    """``pipe`` with its denoiser as it was before ``torch.compile`` or ``.compile()``, which are back afterwards."""
    found: dict[str, Any] = {name: getattr(pipe, name, None) for name in DENOISERS}
    wrapped = {name: module for name, module in found.items() if hasattr(module, "_orig_mod")}
    plain = [module for module in found.values() if isinstance(module, nn.Module)]
    compiled = [
        (module, module._compiled_call_impl)
        for denoiser in plain
        for module in getattr(denoiser, "_orig_mod", denoiser).modules()
        if module._compiled_call_impl is not None
    ]
    try:
        for name, module in wrapped.items():
            setattr(pipe, name, module._orig_mod)
        for module, _ in compiled:
            module._compiled_call_impl = None
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
        for name, module in wrapped.items():
            setattr(pipe, name, module)
