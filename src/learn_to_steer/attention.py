"""Captures attention maps of any model that calls ``F.scaled_dot_product_attention``.

Forward hooks on the attention modules that a family lists enter a ``TorchFunctionMode`` for the length of that module's
forward. The mode sees Q and K after norms and rotary embeddings and computes only the text columns that a loss reads.
No attention processor and no model code is replaced, so gradients stay exact. Gradient checkpointing works too: the
recomputation runs the hooks again. It computes the maps again, since autograd needs the same saved tensors as before,
but the first maps are kept.

A loss that reads maps needs nothing that comes after them. ``run_until_captured`` ends the forward as soon as the last
map that is wanted is there, in whatever order the layers run; the gradient is the same to the bit.

A capture belongs to the context (``contextvars``) in which it was begun. Calls of the same modules from elsewhere, such
as another thread, pass untouched. Where another thread recomputes, as autograd does on a GPU, ``steering.compatibility.
prepared`` takes the context there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, _pop_mode

from learn_to_steer.errors import CaptureError
from learn_to_steer.maps import AttentionMaps, HookPoint, MapSpec

Method = Literal["auto", "explicit", "indicator", "logits"]
FP32_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# Up to this many query-key pairs, plain softmax attention on the CPU is faster than the fused kernel with its backward
# (1.6 times at 16 x 16). Far above it the fused kernel is faster and needs much less memory.
EAGER_LIMIT = 512 * 512
_CAPTURE: ContextVar[_Current | None] = ContextVar("learn_to_steer_capture", default=None)  # the one under way


class Complete(BaseException):
    """All maps of a capture are there, so its forward may end. Nothing but ``run_until_captured`` should see it.

    It is no Exception, so that code of models and hooks does not take it for an error.
    """


@dataclass
class _Current:
    """A capture under way.

    Attributes:
        recorders: Of the layers that are read.
        stops: Whether the forward ends once all of them have maps. False again when it did, since a recomputation, in
            which they have maps from the beginning, must not end.
    """

    recorders: Sequence[SelfAttentionRecorder | CrossAttentionRecorder]
    stops: bool = False

    def end_if_complete(self) -> None:
        """Raise ``Complete`` if the forward ends here."""
        if self.stops and all(recorder.maps is not None for recorder in self.recorders):
            self.stops = False
            raise Complete


def run_until_captured(denoiser: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Call a denoiser inside ``AttentionCapture.capture``, and end the call once the last map is there.

    Args:
        denoiser: The UNet or transformer.
        arguments: Keyword arguments of the call.
    """
    current = _CAPTURE.get()
    if current is not None:
        current.stops = True
    with suppress(Complete):
        denoiser(**arguments)


class AttentionCapture:
    """Captures the attention maps of some layers during a forward.

    Attributes:
        points: The layers to read, in channel order.
        spec: Which maps the loss reads.
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
            attention_modules: All attention modules of the model. On the CPU, those that are not read are sped up.
            spec: Which maps the loss reads; by default those of the objects in all layers.
            method: How maps are computed. "indicator" runs attention with the columns' weights as its values, "logits"
                selects columns and subtracts the log-sum-exp, "explicit" computes the full softmax, and "auto" is the
                fastest of them on the device. They agree up to rounding.
        """
        self.points = tuple(points)
        self.spec = spec or MapSpec()
        self.method = method
        self._others = tuple(m for m in attention_modules if all(m is not point.module for point in points))

    @contextmanager
    def capture(
        self,
        weights: Float[Tensor, "batch objects tokens"],
        height: int,
        width: int,
        rows: Int[Tensor, " batch"] | None = None,
    ) -> Iterator[Callable[[], AttentionMaps]]:
        """Hook the layers inside the context, which has to stay open until the backward is done.

        Args:
            weights: The weights that average the text columns of each object.
            height: Height of the latents: image tokens on FLUX, latent pixels on Stable Diffusion.
            width: Width of the latents, likewise.
            rows: The rows of the forward that are read. None: all of them.

        Yields:
            A function that returns the maps after the forward. It raises CaptureError if a layer did not call
            ``F.scaled_dot_product_attention``.
        """
        handles = []
        outer = _CAPTURE.get()
        depth = torch._C._len_torch_function_stack()
        points, others = self._selected(height, width)
        sizes = [point.layer.size(height, width) for point in points]
        cross = [
            CrossAttentionRecorder(p, s, weights, self.spec, self.method, rows)
            for p, s in zip(points, sizes, strict=True)
        ]
        own = [SelfAttentionRecorder(size, rows) for size in sizes] if self.spec.self_attention else []

        def collect() -> AttentionMaps:
            cross_maps = [recorder.maps for recorder in cross if recorder.maps is not None]
            own_maps = [recorder.maps for recorder in own if recorder.maps is not None]
            if len(cross_maps) < len(cross) or len(own_maps) < len(own):
                unread = {n for n, recorder in enumerate(cross) if recorder.maps is None}
                unread |= {n for n, own_recorder in enumerate(own) if own_recorder.maps is None}
                missing = [points[n].layer.name for n in sorted(unread)]
                raise CaptureError(
                    f"{len(missing)} of {len(points)} attention layers could not be read (first: {missing[0]}). "
                    "Sliced, xformers, sage and hub attention bypass torch's scaled_dot_product_attention: call "
                    "pipe.disable_attention_slicing() and pipe.unet.set_attn_processor(AttnProcessor2_0()), a class in "
                    'diffusers.models.attention_processor, or pipe.transformer.set_attention_backend("native")'
                )
            return AttentionMaps(tuple(cross_maps), self_attention=tuple(own_maps))

        current = _Current([*cross, *own])
        try:
            for point, recorder in zip(points, cross, strict=True):
                handles += _install(point.module, recorder, current)
            for point, own_recorder in zip(points, own, strict=False):
                if point.self_attention is not None:
                    handles += _install(point.self_attention, own_recorder, current)
            for module in others:
                handles += _install(module, EagerAttention(), current)
            _CAPTURE.set(current)
            yield collect
        finally:
            _CAPTURE.set(outer)
            for handle in handles:
                handle.remove()
            # Torch runs always_call hooks after an Exception, but not after a KeyboardInterrupt inside a module.
            while torch._C._len_torch_function_stack() > depth:
                _pop_mode()  # type: ignore[no-untyped-call]

    def _selected(self, height: int, width: int) -> tuple[list[HookPoint], list[nn.Module]]:
        """The layers to read, and the attention modules that are not read but sped up."""
        if self.spec.choose is None:
            return list(self.points), list(self._others)
        layers = self.spec.choose([point.layer for point in self.points], height, width)
        read = [point for point in self.points if point.layer in layers]
        hooked = {id(m) for p in read for m in (p.module, p.self_attention if self.spec.self_attention else None)}
        unread = [point.module for point in self.points] if self._others else []
        return read, [module for module in (*self._others, *unread) if id(module) not in hooked]


def _install(module: nn.Module, mode: TorchFunctionMode, capture: _Current) -> list[Any]:
    """Hooks that enter ``mode`` for the length of the module's forward, if ``capture`` is the one under way."""

    def enter(*_: Any) -> None:
        if _CAPTURE.get() is capture:
            mode.__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        if _CAPTURE.get() is capture:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            capture.end_if_complete()

    # always_call: the mode is left after an exception too, such as the one by which checkpointing stops a
    # recomputation early.
    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


@dataclass(frozen=True)
class Attention:
    """The arguments of one ``scaled_dot_product_attention``, under their names there."""

    query: Float[Tensor, "batch heads queries channels"]
    key: Float[Tensor, "batch heads keys channels"]
    value: Float[Tensor, "batch heads keys width"]
    attn_mask: Shaped[Tensor, "*#batch #queries keys"] | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is a softmax over the keys without dropout, causal mask or grouped queries."""
        return self.dropout_p == 0.0 and not self.is_causal and not self.enable_gqa

    @property
    def is_faster_eagerly(self) -> bool:
        """Whether a plain softmax is faster than the fused kernel, backward included."""
        small = self.query.shape[-2] * self.key.shape[-2] <= EAGER_LIMIT
        return self.is_plain and self.query.device.type == "cpu" and small and torch.is_grad_enabled()

    def select(self, rows: Int[Tensor, " rows"] | None) -> Attention:
        """Return the attention of some samples of the batch; None keeps all."""
        if rows is None:
            return self
        rows = rows.to(self.query.device)
        mask = self.attn_mask
        if mask is not None and mask.ndim > 2 and mask.shape[0] == self.query.shape[0]:
            mask = mask[rows]
        return replace(self, query=self.query[rows], key=self.key[rows], value=self.value[rows], attn_mask=mask)

    def probabilities(self) -> Float[Tensor, "batch heads queries keys"]:
        """Return the attention probabilities, fp32."""
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

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Float[Tensor, "batch heads queries width"]:
        """Return the output of the attention; ``stock`` computes it as the model would."""
        if attention.is_faster_eagerly:
            return attention.probabilities().to(attention.value.dtype) @ attention.value
        return stock()


class SelfAttentionRecorder(EagerAttention):
    """Computes one layer's self-attention probabilities and keeps their mean over heads.

    Attributes:
        maps: None until the layer has run.
    """

    def __init__(self, size: tuple[int, int], rows: Int[Tensor, " batch"] | None = None) -> None:
        """Prepare to record maps of ``size`` (height, width), of some ``rows`` of the forward."""
        super().__init__()
        self._size, self._rows = size, rows
        self.maps: Float[Tensor, "batch places height width"] | None = None

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Float[Tensor, "batch heads queries width"]:
        """See ``EagerAttention.attend``; keeps the first maps."""
        probabilities = attention.select(self._rows).probabilities()
        if self.maps is None:
            mean = probabilities.mean(dim=1)
            self.maps = mean.reshape(*mean.shape[:2], *self._size)
        if self._rows is not None:
            return stock()
        return probabilities.to(attention.value.dtype) @ attention.value if attention.is_plain else stock()


class CrossAttentionRecorder(EagerAttention):
    """Computes one layer's maps of the text columns, in addition to its attention or, on the CPU, as a part of it.

    Attributes:
        maps: None until the layer has run.
    """

    def __init__(
        self,
        point: HookPoint,
        size: tuple[int, int],
        weights: Float[Tensor, "batch objects tokens"],
        spec: MapSpec,
        method: Method,
        rows: Int[Tensor, " batch"] | None = None,
    ) -> None:
        """Prepare to record maps of ``size`` (height, width), of ``rows``, for the columns' averaging ``weights``."""
        super().__init__()
        self._point, self._size = point, size
        self.maps: Float[Tensor, "batch objects heads height width"] | None = None
        self._weights, self._spec, self._method, self._rows = weights, spec, method, rows
        self._tokens = weights.shape[-1]

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Float[Tensor, "batch heads queries width"]:
        """See ``EagerAttention.attend``; keeps the first maps."""
        if not self._is_of_the_text(attention):
            return stock()
        eagerly = attention.is_faster_eagerly and self._method in ("auto", "explicit")
        if self._rows is not None or not eagerly:
            output = stock()
            self._store(self._maps(attention.select(self._rows)))
            return output
        probabilities = attention.probabilities()
        if self._point.text == "only":  # the maps are columns of these probabilities
            self._store(probabilities @ self._weights_like(probabilities).transpose(-2, -1))
        else:
            self._store(self._maps(attention))
        return probabilities.to(attention.value.dtype) @ attention.value

    def _is_of_the_text(self, attention: Attention) -> bool:
        """Whether the keys are the text's, by their number; an IP-Adapter makes further calls with its own tokens."""
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
        """Attention whose values are the columns' weights: its output is the maps, and memory stays linear."""
        weights = self._weights_like(query)
        objects, width = weights.shape[-2], query.shape[-1]
        padded = -(-objects // width) * width
        values = query.new_zeros(*key.shape[:-1], padded)
        values[..., text, :objects] = weights.transpose(-2, -1)
        # In fp32, which a backend that the model was set to (flash, cuDNN) may not take. The choice is global: other
        # threads would get it too, so it is changed only if need be.
        cuda: Any = torch.backends.cuda
        takes_fp32 = cuda.mem_efficient_sdp_enabled() or cuda.math_sdp_enabled()
        with nullcontext() if takes_fp32 else sdpa_kernel(FP32_BACKENDS):
            parts = [
                functional.scaled_dot_product_attention(query, key, part.contiguous(), attn_mask=mask, scale=scale)
                for part in torch.split(values, width, dim=-1)
            ]
        return torch.cat(parts, dim=-1)[..., :objects]

    def _by_logits(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, text: slice) -> Tensor:
        """The softmax of some columns: their logits minus the log-sum-exp of all. Checks the other methods."""
        logits = _logits(query, key, mask, scale)
        total = logits.logsumexp(dim=-1, keepdim=True)
        weights = self._weights_like(query)
        used = weights.sum((0, 1, 2)).nonzero().flatten()
        return (logits[..., text][..., used] - total).exp() @ weights[..., used].transpose(-2, -1)

    def _store(self, maps: Float[Tensor, "batch heads places objects"]) -> None:
        """Keep the first maps; a recomputation computes the same ones again."""
        batch, heads, _, objects = maps.shape
        if self.maps is None:
            self.maps = maps.permute(0, 3, 1, 2).reshape(batch, objects, heads, *self._size)
