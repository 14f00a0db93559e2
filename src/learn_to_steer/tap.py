"""The tap: reads attention maps off any model that calls ``F.scaled_dot_product_attention``.

Forward hooks on the attention modules a family lists enter a ``TorchFunctionMode`` for the length of that
module's forward. The mode sees Q and K after norms and rotary embeddings and computes only the columns an
objective asks for. No attention processor and no model code is replaced, so gradients and gradient
checkpointing stay exact: the mode lives inside the module, so a recomputation re-enters it, computes the
maps again (autograd counts the saved tensors) and keeps the first ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, _pop_mode

from learn_to_steer.errors import CaptureError
from learn_to_steer.maps import AttentionMaps, MapSpec, TapPoint

Method = Literal["auto", "explicit", "indicator", "logits"]
# Up to this many query-key pairs the CPU's plain softmax attention beats the backward of its fused kernel
# (1.6 times at 16 x 16); far beyond it, the fused kernel wins in time and by far in memory.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
EXPLICIT_LIMIT = 512 * 512


class Tap:
    """Reads maps of ``points``; ``answered`` are further attention modules whose CPU attention is sped up."""

    def __init__(
        self,
        points: Sequence[TapPoint],
        answered: Sequence[nn.Module] = (),
        spec: MapSpec | None = None,
        method: Method = "auto",
    ) -> None:
        self.points = tuple(points)
        self.spec = spec or MapSpec()
        self.method = method
        self._answered = tuple(module for module in answered if all(module is not p.module for p in points))

    @contextmanager
    def reading(self, weights: Tensor, height: int, width: int) -> Iterator[Callable[[], AttentionMaps]]:
        """Install the hooks; the yielded function returns the maps once the forward has run.

        ``weights`` (batch, objects, tokens) average an object's columns; ``height`` and ``width`` are the
        latents'. Keep the context open until the backward is done. Raises CaptureError, on asking for the
        maps, when a layer did not show its attention.
        """
        captured: dict[str, Tensor] = {}
        own: dict[str, Tensor] = {}
        handles = []
        depth = torch._C._len_torch_function_stack()
        points, others = self._chosen(height, width)

        def collect() -> AttentionMaps:
            names = [p.layer.name for p in points]
            missing = [n for n in names if n not in captured or (self.spec.own and n not in own)]
            if missing:
                raise CaptureError(
                    f"{len(missing)} of {len(points)} attention layers showed no attention (first: {missing[0]}). "
                    "Sliced, xformers, sage and hub attention bypass torch's scaled_dot_product_attention: call "
                    "pipe.disable_attention_slicing() and pipe.unet.set_default_attn_processor(), or "
                    'pipe.transformer.set_attention_backend("native")'
                )
            return AttentionMaps(tuple(captured[n] for n in names), own=tuple(own[n] for n in names if n in own))

        try:
            for point in points:
                handles += _install(point.module, _Reader(self, point, weights, (height, width), captured))
                if self.spec.own and point.own is not None:
                    handles += _install(point.own, _OwnReader(point, (height, width), own))
            for module in others:
                handles += _install(module, _Answerer())
            yield collect
        finally:
            for handle in handles:
                handle.remove()
            # Torch runs always-called hooks after an Exception only: a Ctrl-C inside a module leaves its mode on.
            while torch._C._len_torch_function_stack() > depth:
                _pop_mode()  # type: ignore[no-untyped-call]

    def _chosen(self, height: int, width: int) -> tuple[list[TapPoint], list[nn.Module]]:
        """The points to read, and the attention modules that are only answered."""
        if self.spec.choose is None:
            return list(self.points), list(self._answered)
        layers = self.spec.choose([p.layer for p in self.points], height, width)
        chosen = [p for p in self.points if p.layer in layers]
        read = {id(module) for p in chosen for module in (p.module, p.own if self.spec.own else None)}
        passed = [p.module for p in self.points] if self._answered else []
        return chosen, [module for module in (*self._answered, *passed) if id(module) not in read]


def _install(module: nn.Module, mode: TorchFunctionMode) -> list[Any]:
    def enter(*_: Any) -> None:
        mode.__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    # always_call: the mode is left after an exception too, checkpointing's early stop of a recomputation
    # included.
    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


def _wants_explicit(query: Tensor, key: Tensor) -> bool:
    small = query.shape[-2] * key.shape[-2] <= EXPLICIT_LIMIT
    return query.device.type == "cpu" and small and torch.is_grad_enabled()


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    logits = query.float() @ key.float().transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1)


def _attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float | None, bool]:
    plain = dropout_p == 0.0 and not is_causal and not enable_gqa
    return query, key, value, attn_mask, scale, plain


class _Answerer(TorchFunctionMode):
    """Answers small CPU attention with a plain softmax while gradients are recorded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            query, key, value, mask, scale, plain = _attention_arguments(*args, **kwargs)
            if plain and _wants_explicit(query, key):
                return _probabilities(query, key, mask, scale).to(value.dtype) @ value
        return func(*args, **kwargs)


class _Reader(TorchFunctionMode):
    """Computes one layer's maps beside (or, on the CPU, as part of) its attention."""

    def __init__(
        self, tap: Tap, point: TapPoint, weights: Tensor, size: tuple[int, int], captured: dict[str, Tensor]
    ) -> None:
        super().__init__()
        self._tap, self._point, self._weights, self._captured = tap, point, weights, captured
        self._height, self._width = point.layer.size(*size)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, mask, scale, plain = _attention_arguments(*args, **kwargs)
        tokens = self._weights.shape[-1]
        # An IP-Adapter attends to its own tokens in further calls; the text's are told by their numbers.
        places = self._height * self._width
        joint = self._point.text != "only"
        if key.shape[-2] < tokens + places if joint else key.shape[-2] != tokens:
            return func(*args, **kwargs)
        if plain and self._tap.method in ("auto", "explicit") and _wants_explicit(query, key):
            probabilities = _probabilities(query, key, mask, scale)
            if self._point.text == "only":  # the maps are part of what was computed anyway
                self._store(probabilities @ self._for_heads(probabilities).transpose(-2, -1))
            else:
                self._store(self._maps(query, key, mask, scale))
            return probabilities.to(value.dtype) @ value
        output = func(*args, **kwargs)
        self._store(self._maps(query, key, mask, scale))
        return output

    def _for_heads(self, like: Tensor) -> Tensor:
        """Weights as (batch, 1, objects, tokens), fp32, on the layer's device."""
        return self._weights.to(device=like.device, dtype=torch.float32)[:, None]

    def _maps(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
        """Maps (batch, heads, places, objects) from Q and K, with the text cut out of a joint sequence."""
        tokens = self._weights.shape[-1]
        text = {"only": slice(None), "first": slice(0, tokens), "last": slice(-tokens, None)}[self._point.text]
        if self._point.text == "first":
            query = query[..., tokens:, :]
        elif self._point.text == "last":
            query = query[..., :-tokens, :]
        if self._tap.spec.softmax == "text":
            key, text = key[..., text, :], slice(None)
            mask = None if self._point.text != "only" else mask
        query, key = query.float(), key.float()
        weights = self._for_heads(query)
        if self._tap.method == "explicit":
            return _probabilities(query, key, mask, scale)[..., text] @ weights.transpose(-2, -1)
        if self._tap.method == "logits":
            return self._selected(query, key, mask, scale, text)
        return self._indicated(query, key, mask, scale, text)

    def _indicated(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, text: slice) -> Tensor:
        """Attention whose values are the columns' weights: its output *is* the maps, memory stays linear."""
        weights = self._for_heads(query)
        objects, width = weights.shape[-2], query.shape[-1]
        padded = -(-objects // width) * width
        values = query.new_zeros(*key.shape[:-1], padded)
        values[..., text, :objects] = weights.transpose(-2, -1)
        # In fp32, which a backend that the model was set to (flash, cuDNN) may not take.
        with sdpa_kernel(KERNELS):
            parts = [
                functional.scaled_dot_product_attention(query, key, part.contiguous(), attn_mask=mask, scale=scale)
                for part in torch.split(values, width, dim=-1)
            ]
        return torch.cat(parts, dim=-1)[..., :objects]

    def _selected(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, text: slice) -> Tensor:
        """The wanted columns' logits minus the log-sum-exp of all: the second, independent way."""
        logits = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        if mask is not None:
            logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
        total = logits.logsumexp(dim=-1, keepdim=True)
        weights = self._for_heads(query)
        used = weights.sum((0, 1, 2)).nonzero().flatten()
        return (logits[..., text][..., used] - total).exp() @ weights[..., used].transpose(-2, -1)

    def _store(self, maps: Tensor) -> None:
        batch, heads, _, objects = maps.shape
        name = self._point.layer.name
        if name not in self._captured:
            self._captured[name] = maps.permute(0, 3, 1, 2).reshape(batch, objects, heads, self._height, self._width)


class _OwnReader(TorchFunctionMode):
    """Writes one layer's self-attention out and keeps its mean over heads."""

    def __init__(self, point: TapPoint, size: tuple[int, int], captured: dict[str, Tensor]) -> None:
        super().__init__()
        self._name, self._captured = point.layer.name, captured
        self._height, self._width = point.layer.size(*size)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, mask, scale, plain = _attention_arguments(*args, **kwargs)
        probabilities = _probabilities(query, key, mask, scale)
        if self._name not in self._captured:
            mean = probabilities.mean(dim=1)
            self._captured[self._name] = mean.reshape(*mean.shape[:2], self._height, self._width)
        return probabilities.to(value.dtype) @ value if plain else func(*args, **kwargs)
