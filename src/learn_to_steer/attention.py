"""Captures attention maps of any model that calls ``F.scaled_dot_product_attention``.

Forward hooks on the attention modules that a family lists enter a ``TorchFunctionMode`` for the length of that module's
forward. The mode sees Q and K after norms and rotary embeddings and computes only the text columns that a loss reads
(``column_maps``); the backward computes them again.
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
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode, _pop_mode

from learn_to_steer.column_maps import Attention, ColumnMaps, ColumnWeights, Method
from learn_to_steer.errors import CaptureError
from learn_to_steer.maps import AttentionMaps, HookPoint, MapSpec, TextSpan

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
    with _keeping_lora_scales(denoiser, arguments), suppress(Complete):
        denoiser(**arguments)


@contextmanager
def _keeping_lora_scales(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Set LoRA layers back to their scales, which older versions of diffusers do at the end of a forward only."""
    scaled = any(isinstance(value, Mapping) and "scale" in value for value in arguments.values())
    scales = [getattr(module, "scaling", None) for module in denoiser.modules()] if scaled else []
    before = [(scale, dict(scale)) for scale in scales if isinstance(scale, dict)]
    try:
        yield
    finally:
        for scale, values in before:
            scale.update(values)


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
        spans: Sequence[TextSpan] | None = None,
    ) -> Iterator[Callable[[], AttentionMaps]]:
        """Hook the layers inside the context, which has to stay open until the backward is done.

        Args:
            weights: The weights that average the text columns of each object.
            height: Height of the latents: image tokens on FLUX, latent pixels on Stable Diffusion.
            width: Width of the latents, likewise.
            rows: The rows of the forward that are read. None: all of them.
            spans: Where the text and the image of each row that is read stand in the sequence (``Family.spans``).

        Yields:
            A function that returns the maps after the forward. It raises CaptureError if a layer did not call
            ``F.scaled_dot_product_attention``.
        """
        handles = []
        outer = _CAPTURE.get()
        depth = torch._C._len_torch_function_stack()
        points, others = self._selected(height, width)
        sizes = [point.layer.size(height, width) for point in points]
        columns = ColumnWeights(weights)
        cross = [
            CrossAttentionRecorder(
                s, ColumnMaps(columns, p.text, self.spec.softmax, self.method, s[0] * s[1], spans), rows
            )
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

    def leave(_module: nn.Module, _arguments: Any, output: Any) -> None:
        if _CAPTURE.get() is capture:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            if output is not None:  # after an error, which is not to be replaced
                capture.end_if_complete()

    # always_call: the mode is left after an exception too, such as the one by which checkpointing stops a
    # recomputation early.
    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


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
        if not attention.is_faster_eagerly:
            output = stock()
            self._store(attention.select(self._rows).mean_probabilities())
            return output
        probabilities = attention.probabilities()
        self._store(probabilities.mean(dim=1))
        return probabilities.to(attention.value.dtype) @ attention.value

    def _store(self, mean: Float[Tensor, "batch places keys"]) -> None:
        if self.maps is None:
            self.maps = mean.reshape(*mean.shape[:2], *self._size)


class CrossAttentionRecorder(EagerAttention):
    """Computes one layer's maps of the text columns, in addition to its attention or, on the CPU, as a part of it.

    Attributes:
        maps: None until the layer has run.
    """

    def __init__(self, size: tuple[int, int], columns: ColumnMaps, rows: Int[Tensor, " batch"] | None = None) -> None:
        """Prepare to record maps of ``size`` (height, width) as ``columns`` computes them, of some ``rows``."""
        super().__init__()
        self.maps: Float[Tensor, "batch objects heads height width"] | None = None
        self._size, self._columns, self._rows = size, columns, rows

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Float[Tensor, "batch heads queries width"]:
        """See ``EagerAttention.attend``; keeps the first maps."""
        if not self._is_of_the_text(attention):
            return stock()
        columns = self._columns
        eagerly = attention.is_faster_eagerly and columns.method in ("auto", "explicit")
        if self._rows is not None or not eagerly:
            output = stock()
            self._store(columns.recomputed(attention.select(self._rows)))
            return output
        probabilities = attention.probabilities()
        if columns.text == "only" and columns.spans is None:  # the maps are columns of these probabilities
            self._store(probabilities @ columns.weights.on(probabilities.device).transpose(-2, -1))
        else:  # small: to recompute them would cost more time than the memory is worth
            self._store(columns.of(attention))
        return probabilities.to(attention.value.dtype) @ attention.value

    def _is_of_the_text(self, attention: Attention) -> bool:
        """Whether the keys are the text's, by their number; an IP-Adapter makes further calls with its own tokens."""
        keys, tokens, spans = attention.key.shape[-2], self._columns.weights.tokens, self._columns.spans
        if spans is not None:
            return keys >= max(span.start + span.length for span in spans)
        if self._columns.text == "only":
            return keys == tokens
        return keys >= tokens + self._size[0] * self._size[1]

    def _store(self, maps: Float[Tensor, "batch heads places objects"]) -> None:
        """Keep the first maps; a recomputation computes the same ones again."""
        batch, heads, _, objects = maps.shape
        if self.maps is None:
            self.maps = maps.permute(0, 3, 1, 2).reshape(batch, objects, heads, *self._size)
