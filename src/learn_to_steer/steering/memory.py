"""Estimates the memory that an iteration needs, before it runs: the same forward on tensors without data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import ConditioningSnapshot
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Call, Family
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering.loop import index_batch


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that steering needs, in bytes. Temporary buffers of the kernels are not counted.

    Attributes:
        weights: The weights of the whole pipeline.
        kept: Tensors that an iteration keeps for its backward, per image.
        checkpointed: The same with gradient checkpointing: the inputs of all blocks, and the activations of one.
    """

    weights: int
    kept: int
    checkpointed: int


def estimate(pipe: Any, family: Family, snapshot: ConditioningSnapshot) -> MemoryEstimate:
    """Count every tensor that autograd would save, on torch's meta device. Takes about a second and no memory.

    Args:
        pipe: A diffusers pipeline.
        family: Its family.
        snapshot: A recorded call of ``pipe``, with images of the size in question.

    Raises:
        UnsupportedError: The weights are quantised; such layers cannot be built without data.
    """
    denoiser: nn.Module = snapshot.denoiser
    if getattr(denoiser, "hf_quantizer", None) is not None:
        raise UnsupportedError("memory cannot be estimated for quantised weights")
    weights = sum(_size(p) for part in _modules(pipe) for p in part.parameters())
    config: Any = denoiser.config
    with torch.device("meta"):
        empty = type(denoiser).from_config(config)  # type: ignore[attr-defined]
        nn.Module.to(
            empty, dtype=snapshot.call.latents.dtype
        )  # diffusers' own warns that real weights would be rounded
    empty.requires_grad_(False)
    one = index_batch(snapshot.call, torch.zeros(1, dtype=torch.long), snapshot.batch)
    kept = _saved(empty, family, one)
    empty.enable_gradient_checkpointing()
    outside = _saved(empty, family, one)
    blocks = max(len(family.attention_layers(empty)), 1)
    return MemoryEstimate(weights, kept, outside + kept // blocks)


def _saved(denoiser: nn.Module, family: Family, call: Call) -> int:
    """Bytes that autograd saves in a forward with its maps, without the weights."""
    known = {p.untyped_storage()._cdata for p in denoiser.parameters()}
    seen: dict[int, int] = {}
    alive: list[Tensor] = []  # the address of a freed storage could be used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            seen[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    moved = _on_meta(call)
    leaf = moved.latents.requires_grad_()
    weights = columns_to_weights([((1,), (2,))], family.text_length(call)).to("meta")
    capture = AttentionCapture(family.attention_layers(denoiser), method="indicator")
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        _FusedMode(),
        capture.capture(weights, *family.latent_size(call)) as maps,
    ):
        denoiser(**family.write(replace(moved, latents=leaf)) | {"return_dict": False})
        maps()
    return sum(seen.values())


class _Fused(torch.autograd.Function):
    """Attention as its fused kernels save it: queries, keys, values and the output, no probabilities."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("only the forward is counted")


class _FusedMode(TorchFunctionMode):
    """Replaces attention by ``_Fused``; on the meta device torch would save every probability instead."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
            return _Fused.apply(named["query"], named["key"], named["value"])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _on_meta(call: Call) -> Call:
    """The call with tensors that have a shape and no data."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to("meta")
        if isinstance(value, (tuple, list)):
            return type(value)(moved(v) for v in value)
        if isinstance(value, dict):
            return {key: moved(v) for key, v in value.items()}
        return value

    return Call(moved(call.latents), moved(call.time), moved(dict(call.rest)), moved(dict(call.shared)))


def _modules(pipe: Any) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
