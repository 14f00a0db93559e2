"""Reads attention maps off any model that calls ``F.scaled_dot_product_attention``.

Forward hooks on the attention modules that a family lists enter a ``TorchFunctionMode`` for the length of that module's
forward. The mode sees Q and K after norms and rotary embeddings and computes only the text columns that a loss asks
for. No attention processor and no model code is replaced, so gradients and gradient checkpointing stay exact: the mode
lives inside the module, so a recomputation enters it again, computes the maps again (autograd counts the saved
tensors) and keeps the first ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, _pop_mode

from learn_to_steer.errors import CaptureError
from learn_to_steer.maps import AttentionMaps, HookPoint, MapSpec

Method = Literal["auto", "explicit", "indicator", "logits"]
FP32_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# Up to this many query-key pairs the CPU's plain softmax attention beats the backward of its fused kernel
# (1.6 times at 16 x 16); far beyond it, the fused kernel wins in time and by far in memory.
EAGER_LIMIT = 512 * 512


class AttentionCapture:
    """Captures the attention maps of some layers during a forward.

    Attributes:
        points: The layers to read, in channel order.
        spec: What the loss wants to see.
        method: How maps are computed.
    """

    def __init__(
        self,
        points: Sequence[HookPoint],
        attention_modules: Sequence[nn.Module] = (),
        spec: MapSpec | None = None,
        method: Method = "auto",
    ) -> None:
        """Prepare a capture; nothing is hooked yet.

        Args:
            points: The layers to read, in channel order.
            attention_modules: All attention modules of the model. Those that are not read are only sped up on the CPU.
            spec: What the loss wants to see; by default the maps of the objects in all layers.
            method: How maps are computed. "indicator" runs attention with the columns' weights as its values, "logits"
                selects columns and subtracts the log-sum-exp, "explicit" writes the softmax out, and "auto" is the
                fastest of them where it runs. They agree up to rounding.
        """
        self.points = tuple(points)
        self.spec = spec or MapSpec()
        self.method = method
        self._others = tuple(m for m in attention_modules if all(m is not point.module for point in points))

    @contextmanager
    def capture(
        self, weights: Float[Tensor, "batch objects tokens"], height: int, width: int
    ) -> Iterator[Callable[[], AttentionMaps]]:
        """Hook the layers for the length of the context, which has to stay open until the backward is done.

        Args:
            weights: How the text columns of each object are averaged.
            height: Of the latents, in places that the denoiser attends from.
            width: Likewise.

        Yields:
            A function that returns the maps once the forward has run. It raises CaptureError when a layer showed no
            attention.
        """
        cross: dict[str, Tensor] = {}
        own: dict[str, Tensor] = {}
        handles = []
        depth = torch._C._len_torch_function_stack()
        points, others = self._selected(height, width)

        def collect() -> AttentionMaps:
            names = [point.layer.name for point in points]
            missing = [n for n in names if n not in cross or (self.spec.self_attention and n not in own)]
            if missing:
                raise CaptureError(
                    f"{len(missing)} of {len(points)} attention layers showed no attention (first: {missing[0]}). "
                    "Sliced, xformers, sage and hub attention bypass torch's scaled_dot_product_attention: call "
                    "pipe.disable_attention_slicing() and pipe.unet.set_default_attn_processor(), or "
                    'pipe.transformer.set_attention_backend("native")'
                )
            return AttentionMaps(
                tuple(cross[n] for n in names), self_attention=tuple(own[n] for n in names if n in own)
            )

        try:
            for point in points:
                size = point.layer.size(height, width)
                recorder = CrossAttentionRecorder(point, size, cross, weights, self.spec, self.method)
                handles += _install(point.module, recorder)
                if self.spec.self_attention and point.self_attention is not None:
                    handles += _install(point.self_attention, SelfAttentionRecorder(point, size, own))
            for module in others:
                handles += _install(module, EagerAttention())
            yield collect
        finally:
            for handle in handles:
                handle.remove()
            # Torch runs always-called hooks after an Exception only: a Ctrl-C inside a module leaves its mode on.
            while torch._C._len_torch_function_stack() > depth:
                _pop_mode()  # type: ignore[no-untyped-call]

    def _selected(self, height: int, width: int) -> tuple[list[HookPoint], list[nn.Module]]:
        """The layers to read, and the attention modules that are only sped up."""
        if self.spec.choose is None:
            return list(self.points), list(self._others)
        layers = self.spec.choose([point.layer for point in self.points], height, width)
        read = [point for point in self.points if point.layer in layers]
        hooked = {id(m) for p in read for m in (p.module, p.self_attention if self.spec.self_attention else None)}
        unread = [point.module for point in self.points] if self._others else []
        return read, [module for module in (*self._others, *unread) if id(module) not in hooked]


def _install(module: nn.Module, mode: TorchFunctionMode) -> list[Any]:
    """Hooks that enter ``mode`` for the length of the module's forward."""

    def enter(*_: Any) -> None:
        mode.__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    # always_call: the mode is left after an exception too, checkpointing's early stop of a recomputation
    # included.
    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


@dataclass(frozen=True)
class Attention:
    """The arguments of one ``scaled_dot_product_attention``; tensors are (batch, heads, places, channels)."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether a softmax over the keys is all there is to it."""
        return self.dropout_p == 0.0 and not self.is_causal and not self.enable_gqa

    @property
    def is_faster_eagerly(self) -> bool:
        """Whether a plain softmax beats the fused kernel, backward included."""
        small = self.query.shape[-2] * self.key.shape[-2] <= EAGER_LIMIT
        return self.is_plain and self.query.device.type == "cpu" and small and torch.is_grad_enabled()

    def probabilities(self) -> Float[Tensor, "batch heads queries keys"]:
        """The attention itself, written out, fp32."""
        return _logits(self.query.float(), self.key.float(), self.attn_mask, self.scale).softmax(dim=-1)


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Scaled and masked products of queries and keys."""
    logits = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits


class EagerAttention(TorchFunctionMode):
    """Computes small CPU attention as a plain softmax while gradients are recorded. Recorders build on it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self.attend(Attention(*args, **kwargs), lambda: func(*args, **kwargs))
        return func(*args, **kwargs)

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Tensor:
        """The attention's output; ``stock`` computes it as the model would."""
        if attention.is_faster_eagerly:
            return attention.probabilities().to(attention.value.dtype) @ attention.value
        return stock()


class SelfAttentionRecorder(EagerAttention):
    """Writes one layer's self-attention out and keeps its mean over heads."""

    def __init__(self, point: HookPoint, size: tuple[int, int], captured: dict[str, Tensor]) -> None:
        """Record into ``captured``, under the layer's name, maps of ``size`` (height, width)."""
        super().__init__()
        self._name, self._size, self._captured = point.layer.name, size, captured

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Tensor:
        probabilities = attention.probabilities()
        if self._name not in self._captured:
            mean = probabilities.mean(dim=1)
            self._captured[self._name] = mean.reshape(*mean.shape[:2], *self._size)
        return probabilities.to(attention.value.dtype) @ attention.value if attention.is_plain else stock()


class CrossAttentionRecorder(EagerAttention):
    """Computes one layer's maps of the text columns beside (or, on the CPU, as part of) its attention."""

    def __init__(
        self,
        point: HookPoint,
        size: tuple[int, int],
        captured: dict[str, Tensor],
        weights: Float[Tensor, "batch objects tokens"],
        spec: MapSpec,
        method: Method,
    ) -> None:
        """Record into ``captured``, under the layer's name, maps of ``size`` (height, width)."""
        super().__init__()
        self._point, self._size, self._captured = point, size, captured
        self._weights, self._spec, self._method = weights, spec, method
        self._tokens = weights.shape[-1]

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Tensor:
        if not self._is_of_the_text(attention):
            return stock()
        if not (attention.is_faster_eagerly and self._method in ("auto", "explicit")):
            output = stock()
            self._store(self._maps(attention))
            return output
        probabilities = attention.probabilities()
        if self._point.text == "only":  # the maps are part of what was computed anyway
            self._store(probabilities @ self._weights_like(probabilities).transpose(-2, -1))
        else:
            self._store(self._maps(attention))
        return probabilities.to(attention.value.dtype) @ attention.value

    def _is_of_the_text(self, attention: Attention) -> bool:
        """An IP-Adapter attends to its own tokens in further calls; the text's are told by their number."""
        keys = attention.key.shape[-2]
        if self._point.text == "only":
            return keys == self._tokens
        return keys >= self._tokens + self._size[0] * self._size[1]

    def _weights_like(self, like: Tensor) -> Float[Tensor, "batch 1 objects tokens"]:
        """The averaging weights, fp32, for all heads, on the layer's device."""
        return self._weights.to(device=like.device, dtype=torch.float32)[:, None]

    def _maps(self, attention: Attention) -> Float[Tensor, "batch heads places objects"]:
        """Maps from Q and K, with the text cut out of a joint sequence."""
        query, key, mask, scale = attention.query, attention.key, attention.attn_mask, attention.scale
        tokens = self._tokens
        text = {"only": slice(None), "first": slice(0, tokens), "last": slice(-tokens, None)}[self._point.text]
        if self._point.text == "first":
            query = query[..., tokens:, :]
        elif self._point.text == "last":
            query = query[..., :-tokens, :]
        if self._spec.softmax == "text":
            key, text = key[..., text, :], slice(None)
            mask = None if self._point.text != "only" else mask
        query, key = query.float(), key.float()
        if self._method == "explicit":
            probabilities = _logits(query, key, mask, scale).softmax(dim=-1)
            return probabilities[..., text] @ self._weights_like(query).transpose(-2, -1)
        if self._method == "logits":
            return self._by_logits(query, key, mask, scale, text)
        return self._by_indicator(query, key, mask, scale, text)

    def _by_indicator(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, text: slice
    ) -> Tensor:
        """Attention whose values are the columns' weights: its output *is* the maps, memory stays linear."""
        weights = self._weights_like(query)
        objects, width = weights.shape[-2], query.shape[-1]
        padded = -(-objects // width) * width
        values = query.new_zeros(*key.shape[:-1], padded)
        values[..., text, :objects] = weights.transpose(-2, -1)
        # In fp32, which a backend that the model was set to (flash, cuDNN) may not take.
        with sdpa_kernel(FP32_BACKENDS):
            parts = [
                functional.scaled_dot_product_attention(query, key, part.contiguous(), attn_mask=mask, scale=scale)
                for part in torch.split(values, width, dim=-1)
            ]
        return torch.cat(parts, dim=-1)[..., :objects]

    def _by_logits(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, text: slice) -> Tensor:
        """The wanted columns' logits minus the log-sum-exp of all: an independent second way."""
        logits = _logits(query, key, mask, scale)
        total = logits.logsumexp(dim=-1, keepdim=True)
        weights = self._weights_like(query)
        used = weights.sum((0, 1, 2)).nonzero().flatten()
        return (logits[..., text][..., used] - total).exp() @ weights[..., used].transpose(-2, -1)

    def _store(self, maps: Float[Tensor, "batch heads places objects"]) -> None:
        """Keep the first maps; a recomputation brings the same ones again."""
        batch, heads, _, objects = maps.shape
        name = self._point.layer.name
        if name not in self._captured:
            self._captured[name] = maps.permute(0, 3, 1, 2).reshape(batch, objects, heads, *self._size)
