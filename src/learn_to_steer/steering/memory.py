"""Estimates the memory that an iteration needs, before it runs: the same forward on tensors without data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from learn_to_steer.attention import AttentionCapture, run_until_captured
from learn_to_steer.conditioning import ConditioningSnapshot
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Call, Family
from learn_to_steer.loading import quiet
from learn_to_steer.maps import MapSpec, columns_to_weights
from learn_to_steer.steering.loop import index_batch


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that steering needs, in bytes. Temporary buffers of the kernels are not counted.

    Attributes:
        weights: The weights of the whole pipeline.
        kept: Tensors that an iteration keeps for its backward, per image. The forward ends after the last layer whose
            maps are read, and maps are recomputed.
        checkpointed: The same with gradient checkpointing: the inputs of all blocks, and the activations of the largest
            one.
    """

    weights: int
    kept: int
    checkpointed: int


def estimate(pipe: Any, family: Family, snapshot: ConditioningSnapshot, spec: MapSpec | None = None) -> MemoryEstimate:
    """Count every tensor that autograd would keep, on torch's meta device. Takes about a second and no memory.

    Args:
        pipe: A diffusers pipeline.
        family: Its family.
        snapshot: A recorded call of ``pipe``, with images of the size in question.
        spec: Which maps the loss reads; by default those of the objects in all layers.

    Raises:
        UnsupportedError: The weights are quantised; such layers cannot be built without data.
    """
    denoiser: nn.Module = snapshot.denoiser
    if getattr(denoiser, "hf_quantizer", None) is not None:
        raise UnsupportedError("memory cannot be estimated for quantised weights")
    weights = sum(_size(p) for part in _modules(pipe) for p in part.parameters())
    config: Any = denoiser.config
    with quiet(), torch.device("meta"):
        empty = type(denoiser).from_config(config)  # type: ignore[attr-defined]
        nn.Module.to(
            empty, dtype=snapshot.call.latents.dtype
        )  # diffusers' own warns that real weights would be rounded
    one = index_batch(snapshot.call, torch.zeros(1, dtype=torch.long), snapshot.batch)
    kept, checkpointed = count_kept(empty, family, one, spec or MapSpec())
    return MemoryEstimate(weights, kept, checkpointed)


def count_kept(denoiser: nn.Module, family: Family, call: Call, spec: MapSpec) -> tuple[int, int]:
    """Return the bytes that one pass keeps for its backward, without and with gradient checkpointing.

    Args:
        denoiser: The UNet or transformer on the meta device; its gradients and checkpointing are set.
        family: Its family.
        call: A call of it, on any device.
        spec: Which maps are read.
    """
    denoiser.requires_grad_(False)
    moved = replace(_on_meta(call, family.masks), latents=call.latents.detach().to("meta").requires_grad_())
    tokens, spans, size = family.text_length(call), family.spans(denoiser, call), family.latent_size(denoiser, call)
    weights = columns_to_weights([((1,), (2,))], tokens, spans)
    if spec.columns == "every":
        weights = torch.eye(tokens)[None]
    capture = AttentionCapture(family.attention_layers(denoiser), spec=spec, method="indicator")

    def passed(count: _Kept) -> int:
        with (
            torch.enable_grad(),
            count.hooks(),
            _FusedMode(),
            capture.capture(weights.to("meta"), *size, spans=spans) as maps,
        ):
            run_until_captured(denoiser, family.write(moved) | {"return_dict": False})
            maps()  # says which layer could not be read, if any
            return count.bytes()

    known = {p.untyped_storage()._cdata for p in denoiser.parameters()}
    kept = passed(_Kept(known))
    denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    outside = _Kept(known)
    for module in denoiser.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = outside.checkpoint  # type: ignore[assignment]
    return kept, passed(outside) + outside.largest_block


class _Saved:
    """Stands for a tensor that autograd keeps, and goes with the part of the graph that no map depends on."""

    def __init__(self, tensor: Tensor) -> None:
        self.storage = tensor.untyped_storage()  # the tensor itself may lead back to the graph


class _Kept:
    """Counts the storages that autograd keeps, apart from ``known`` ones.

    Attributes:
        largest_block: The most bytes saved inside one checkpointed block.
    """

    def __init__(self, known: Set[int]) -> None:
        self._known = known
        self._saved: list[weakref.ref[_Saved]] = []
        self._inputs: list[_Saved] = []
        self.largest_block = 0

    def bytes(self) -> int:
        """The bytes of all that is kept now, each storage once."""
        alive = [saved.storage for reference in self._saved if (saved := reference())]
        return sum(
            {storage._cdata: storage.nbytes() for storage in alive if storage._cdata not in self._known}.values()
        )

    def add(self, tensor: Tensor) -> _Saved:
        """Count a tensor as long as the result lives."""
        saved = _Saved(tensor)
        self._saved.append(weakref.ref(saved))
        return saved

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A context in which what is saved is counted."""
        return torch.autograd.graph.saved_tensors_hooks(self.add, _no_backward)

    def checkpoint(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a block as gradient checkpointing would: what it saves is not kept, but its inputs are."""
        self._inputs += [self.add(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        inside = _Kept(self._known)
        try:
            with inside.hooks():
                return function(*args, **kwargs)
        finally:  # also if the forward ends in this block
            self.largest_block = max(self.largest_block, inside.bytes())


def _no_backward(_: Any) -> NoReturn:
    raise NotImplementedError("only the forward is counted")


class _Fused(torch.autograd.Function):
    """Attention as its fused kernels save it: queries, keys, values and the output, no probabilities."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _no_backward(ctx)


class _FusedMode(TorchFunctionMode):
    """Replaces attention by ``_Fused``; on the meta device torch would save every probability instead."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
            return _Fused.apply(named["query"], named["key"], named["value"])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _on_meta(call: Call, masks: Collection[str]) -> Call:
    """The call with tensors that have a shape and no data, except for ``masks``."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to("meta")
        if isinstance(value, (tuple, list)):
            return type(value)(moved(v) for v in value)
        if isinstance(value, dict):
            return {key: v if key in masks else moved(v) for key, v in value.items()}
        return value

    parts = (moved(dict(arguments)) for arguments in (call.rest, call.shared, call.lists))
    return Call(moved(call.latents), moved(call.time), *parts)


def _modules(pipe: Any) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
