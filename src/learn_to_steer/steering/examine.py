"""Whether a pipeline can be steered: every tapped layer seen, one pass with a finite gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.replay import record
from learn_to_steer.steering.checks import check_pipeline, refuse_wrapped
from learn_to_steer.steering.eager import eager
from learn_to_steer.steering.memory import Need, estimate
from learn_to_steer.tap import Tap


@dataclass(frozen=True)
class Finding:
    """What one pass showed. ``peak`` is the memory above what was held before, in bytes; None off CUDA.

    ``need`` is what was counted beforehand; None for quantised weights, which cannot be counted.
    """

    family: str
    layers: int
    channels: int
    fingerprint: str
    seconds: float
    gradient: float
    peak: int | None
    need: Need | None


def examine(pipe: Any, height: int, width: int, arguments: Mapping[str, Any] | None = None) -> Finding:
    """One forward and backward through the maps of two text columns; ``height`` and ``width`` in pixels.

    Raises UnsupportedError and CaptureError, naming the remedy, for what steering cannot work with.
    """
    refuse_wrapped(pipe)
    with eager(pipe):
        return _examined(pipe, height, width, arguments)


def _examined(pipe: Any, height: int, width: int, arguments: Mapping[str, Any] | None) -> Finding:
    family = find(pipe)
    check_pipeline(pipe, family)
    denoiser = getattr(pipe, family.denoiser)
    recording = record(pipe, family, ["a dog to the left of a cat"], height, width, arguments)
    quantised = getattr(denoiser, "hf_quantizer", None) is not None
    need = None if quantised else estimate(pipe, family, recording)
    call = recording.call
    weights = columns_to_weights([((1,), (2,))], family.text_length(call))
    tap = Tap(family.points(denoiser), family.attention(denoiser))
    cuda = call.latents.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if cuda else 0
    flags = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    began = time.monotonic()
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        noise = torch.randn(call.latents.shape, generator=torch.Generator().manual_seed(0)).to(call.latents)
        leaf = noise.requires_grad_()
        with torch.enable_grad(), tap.reading(weights, *family.latent_size(call)) as maps:
            recording(leaf, call.time)
            # Sums of maps are nearly constant; squares are not.
            loss = torch.stack([layer.float().square().sum() for layer in maps().layers]).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
        size = float(gradient.float().norm())
    finally:
        for parameter in flags:
            parameter.requires_grad_(True)
    peak = torch.cuda.max_memory_allocated() - held if cuda else None
    layout = family.layout(denoiser)
    seconds = time.monotonic() - began
    return Finding(family.name, len(layout.layers), layout.channels, layout.fingerprint, seconds, size, peak, need)
