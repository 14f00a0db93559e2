"""Tests whether a pipeline can be steered: reads the maps of every layer and takes one gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering.compatibility import check_pipeline, prepared, refuse_wrapped, run_eagerly, without_compile
from learn_to_steer.steering.memory import MemoryEstimate, estimate


@dataclass(frozen=True)
class ProbeResult:
    """The result of one forward and backward.

    Attributes:
        family: The model family's name.
        layers: Number of layers whose maps were read.
        channels: Number of maps per object.
        fingerprint: Of the layout of the maps.
        seconds: Time of the forward and backward.
        gradient: L2 norm of the gradient with respect to the latents.
        peak: Peak memory above what was allocated before, in bytes; None without CUDA.
        memory: The estimate made beforehand; None for quantised weights, which cannot be estimated.
    """

    family: str
    layers: int
    channels: int
    fingerprint: str
    seconds: float
    gradient: float
    peak: int | None
    memory: MemoryEstimate | None


def probe_pipeline(pipe: Any, height: int, width: int, arguments: Mapping[str, Any] | None = None) -> ProbeResult:
    """Run one forward and backward through the maps of two text columns.

    Args:
        pipe: A diffusers pipeline.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        arguments: Further arguments of the pipeline call.

    Raises:
        UnsupportedError: Steering does not work with this pipeline; the message names the remedy.
        CaptureError: A layer's attention could not be read.
    """
    refuse_wrapped(pipe)
    return _probe(without_compile(pipe), height, width, arguments)


def _probe(pipe: Any, height: int, width: int, arguments: Mapping[str, Any] | None) -> ProbeResult:
    family = find(pipe)
    check_pipeline(pipe, family)
    denoiser = getattr(pipe, family.denoiser)
    snapshot = record(pipe, family, ["a dog to the left of a cat"], height, width, arguments)
    quantised = getattr(denoiser, "hf_quantizer", None) is not None
    memory = None if quantised else estimate(pipe, family, snapshot)
    call = snapshot.call
    weights = columns_to_weights([((1,), (2,))], family.text_length(call))
    capture = AttentionCapture(family.attention_layers(denoiser), family.attention(denoiser))
    cuda = call.latents.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated() if cuda else 0
    began = time.monotonic()
    with prepared(denoiser), run_eagerly():
        noise = torch.randn(call.latents.shape, generator=torch.Generator().manual_seed(0)).to(call.latents)
        leaf = noise.requires_grad_()
        with torch.enable_grad(), capture.capture(weights, *family.latent_size(call)) as maps:
            snapshot(leaf, call.time)
            # The sum of a map is nearly constant; the sum of its squares is not.
            loss = torch.stack([layer.float().square().sum() for layer in maps().layers]).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
        norm = float(gradient.float().norm())
    peak = torch.cuda.max_memory_allocated() - allocated if cuda else None
    layout = family.layout(denoiser)
    seconds = time.monotonic() - began
    return ProbeResult(
        family.name, len(layout.layers), layout.channels, layout.fingerprint, seconds, norm, peak, memory
    )
