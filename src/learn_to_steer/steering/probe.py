"""Tests whether a pipeline can be steered: reads the maps of every layer and takes one gradient."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering.compatibility import check_pipeline, prepared, run_eagerly, without_compile
from learn_to_steer.steering.memory import MemoryEstimate, estimate
from learn_to_steer.steering.refusals import refuse_wrapped

MOST_TIMED = 5
LONG = 10.0  # seconds after which nothing more is timed


@dataclass(frozen=True)
class ProbeResult:
    """The result of a few equal forwards and backwards.

    Attributes:
        family: The model family's name.
        layers: Number of layers whose maps were read.
        channels: Number of maps per object.
        fingerprint: Of the layout of the maps.
        seconds: Time of one forward and backward; the median of ``timed`` ones.
        timed: Number of forwards and backwards that were timed, after one that was not: the first takes longer.
        gradient: L2 norm of the gradient with respect to the latents.
        peak: Peak memory above what was allocated before, in bytes; None without CUDA.
        memory: The estimate made beforehand; None for quantised weights, which cannot be estimated.
    """

    family: str
    layers: int
    channels: int
    fingerprint: str
    seconds: float
    timed: int
    gradient: float
    peak: int | None
    memory: MemoryEstimate | None


def probe_pipeline(pipe: Any, height: int, width: int, arguments: Mapping[str, Any] | None = None) -> ProbeResult:
    """Run a few equal forwards and backwards through the maps of two text columns: one to warm up, and timed ones.

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
    drawn = family.drawn_size(pipe, height, width, arguments or {})
    snapshot = record(pipe, family, ["a dog to the left of a cat"], *drawn, arguments)
    quantised = getattr(denoiser, "hf_quantizer", None) is not None
    memory = None if quantised else estimate(pipe, family, snapshot)
    call = snapshot.call
    spans = family.spans(denoiser, call)
    weights = columns_to_weights([((1,), (2,))], family.text_length(call), spans)
    size = family.latent_size(denoiser, call)
    capture = AttentionCapture(family.attention_layers(denoiser), family.attention(denoiser))
    cuda = call.latents.device.type == "cuda"
    noise = torch.randn(call.latents.shape, generator=torch.Generator().manual_seed(0)).to(call.latents)

    def one_iteration() -> float:
        """The norm of the gradient; to have it as a number, the GPU must have finished."""
        leaf = noise.clone().requires_grad_()
        with torch.enable_grad(), capture.capture(weights, *size, spans=spans) as maps:
            snapshot(leaf, call.time)
            # The sum of a map is nearly constant; the sum of its squares is not.
            loss = torch.stack([layer.float().square().sum() for layer in maps().layers]).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
        return float(gradient.float().norm())

    with prepared(denoiser), run_eagerly():
        norm = one_iteration()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated() if cuda else 0
        durations = _durations(one_iteration)
    peak = torch.cuda.max_memory_allocated() - allocated if cuda else None
    layout = family.layout(denoiser)
    return ProbeResult(
        family.name,
        len(layout.layers),
        layout.channels,
        layout.fingerprint,
        statistics.median(durations),
        len(durations),
        norm,
        peak,
        memory,
    )


def _durations(work: Callable[[], object]) -> list[float]:
    """The seconds that ``work`` takes, each of a few times; once if it takes long."""
    durations: list[float] = []
    while not durations or (len(durations) < MOST_TIMED and sum(durations) < LONG):
        began = time.perf_counter()
        work()
        durations.append(time.perf_counter() - began)
    return durations
