"""How much memory a pass will need, counted before it runs: the same forward on tensors without data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Call, Family
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.replay import Recording
from learn_to_steer.tap import Tap


@dataclass(frozen=True)
class Need:
    """Bytes: what the pipeline's weights take, and what a pass keeps for its backward with one image.

    ``checkpointed`` is the latter with gradient checkpointing: the inputs of all blocks, and the inside of one.
    """

    weights: int
    kept: int
    checkpointed: int


def estimate(pipe: Any, family: Family, recording: Recording) -> Need:
    """Memory of steering ``pipe`` as it was called in ``recording``, per image of a pass.

    Counts every tensor that autograd would save, on torch's meta device: no data, no memory, about a second.
    Working space of the kernels is not counted. Raises UnsupportedError for quantised weights, whose layers
    have no plain twin to count with.
    """
    denoiser: nn.Module = recording.denoiser
    if getattr(denoiser, "hf_quantizer", None) is not None:
        raise UnsupportedError("memory cannot be estimated for quantised weights")
    weights = sum(_size(p) for part in _modules(pipe) for p in part.parameters())
    config: Any = denoiser.config
    with torch.device("meta"):
        twin = type(denoiser).from_config(config).to(dtype=recording.call.latents.dtype)  # type: ignore[attr-defined]
    twin.requires_grad_(False)
    one = recording.rows(torch.zeros(1, dtype=torch.long)).call
    kept = _saved(twin, family, one)
    twin.enable_gradient_checkpointing()
    outside = _saved(twin, family, one)
    blocks = max(len(family.points(twin)), 1)
    return Need(weights, kept, outside + kept // blocks)


def _saved(twin: nn.Module, family: Family, call: Call) -> int:
    """Bytes that autograd saves in a forward with its maps, weights and the latents themselves not counted."""
    known = {p.untyped_storage()._cdata for p in twin.parameters()}
    seen: dict[int, int] = {}
    alive: list[Tensor] = []  # a freed storage's address could come back

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            seen[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    moved = _on_meta(call)
    leaf = moved.latents.requires_grad_()
    weights = columns_to_weights([((1,), (2,))], family.text_length(call)).to("meta")
    tap = Tap(family.points(twin), spec=None, method="indicator")
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        _FusedMode(),
        tap.reading(weights, *family.latent_size(call)) as maps,
    ):
        twin(**family.write(replace(moved, latents=leaf)) | {"return_dict": False})
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
    """The meta device itself would write attention out, and save every probability."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
            return _Fused.apply(named["query"], named["key"], named["value"])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _on_meta(call: Call) -> Call:
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
