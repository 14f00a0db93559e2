"""Attention maps as functions of a layer's queries and keys, which the backward computes again.

The model's own attention keeps queries and keys for its backward anyway. ``recomputed`` keeps nothing else: no copies
in fp32 and no probabilities. On a FLUX.1 transformer these would weigh many times what the maps do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from learn_to_steer.maps import Softmax, Text, TextSpan

Method = Literal["auto", "explicit", "indicator", "logits"]
FP32_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# Up to this many query-key pairs, plain softmax attention on the CPU is faster than the fused kernel with its backward
# (1.6 times at 16 x 16). Far above it the fused kernel is faster and needs much less memory.
EAGER_LIMIT = 512 * 512


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
        """Return the attention of some samples of the batch; None keeps all.

        Args:
            rows: Their indices.
        """
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

    def mean_probabilities(self) -> Float[Tensor, "batch queries keys"]:
        """Return the mean of the probabilities over the heads, fp32, recomputed in the backward."""
        return recomputed(partial(_mean_probabilities, scale=self.scale), self)


class ColumnWeights:
    """Weights that average text columns, moved once to each device that reads them.

    Attributes:
        tokens: Number of text columns.
    """

    def __init__(self, weights: Float[Tensor, "batch objects tokens"]) -> None:
        """Keep ``weights`` where they are until a layer reads them."""
        self._weights = weights
        self._moved: dict[torch.device, Tensor] = {}
        self.tokens = weights.shape[-1]

    def on(self, device: torch.device) -> Float[Tensor, "batch 1 objects tokens"]:
        """Return the weights for all heads, fp32."""
        if device not in self._moved:
            self._moved[device] = self._weights.to(device=device, dtype=torch.float32)[:, None]
        return self._moved[device]


@dataclass(frozen=True)
class ColumnMaps:
    """Computes the maps of text columns from the queries and keys of a layer.

    Attributes:
        weights: The weights that average the text columns of each object.
        text: Where the text stands among the keys.
        softmax: As in ``MapSpec``.
        method: As in ``AttentionCapture``.
        places: Number of the image's queries, which padding may follow. None: all queries that are not the text's.
        spans: Per sample, where its text and image stand; None where ``text`` says all.
    """

    weights: ColumnWeights
    text: Text
    softmax: Softmax
    method: Method
    places: int | None = None
    spans: Sequence[TextSpan] | None = None

    def of(self, attention: Attention) -> Float[Tensor, "batch heads places objects"]:
        """Return the maps, with the text cut out of a joint sequence; autograd keeps what they are computed from."""
        return self._compute(attention.query, attention.key, attention.attn_mask, attention.scale)

    def recomputed(self, attention: Attention) -> Float[Tensor, "batch heads places objects"]:
        """Return the same maps, contiguous, recomputed in the backward."""
        return recomputed(partial(self._compute, scale=attention.scale), attention)

    def _compute(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
        key = _for_every_head(key, query)
        mask = mask if mask is None else mask.reshape(*[1] * (4 - mask.ndim), *mask.shape)
        weights, text = self.weights.on(query.device), slice(None)
        if self.text != "only":
            query, mask = self._of_the_image(query, mask)
        if self.text != "only" and self.softmax == "text":
            key, mask = self._of_the_text(key, mask)
        elif self.spans is not None:
            weights = self._placed(weights, key.shape[-2])
        elif self.text != "only":
            text = self._columns()
        query, key = query.float(), key.float()
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.float()
        if self.method == "explicit":
            probabilities = _logits(query, key, mask, scale).softmax(dim=-1)
            return probabilities[..., text] @ weights.transpose(-2, -1)
        by = self._by_logits if self.method == "logits" else self._by_indicator
        return by(query, key, mask, scale, weights, text)

    def _columns(self) -> slice:
        """Where the text columns are among the keys of a joint sequence without padding."""
        return slice(0, self.weights.tokens) if self.text == "first" else slice(-self.weights.tokens, None)

    def _of_the_image(self, query: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The queries of the image and their rows of the mask. A joint sequence has those of text and padding, too."""
        tokens = self.weights.tokens
        first = [tokens if self.text == "first" else 0] if self.spans is None else [span.image for span in self.spans]
        places = self.places or query.shape[-2] - tokens
        query = _cut(query, first, places, dim=-2)
        if mask is not None and mask.shape[-2] > 1:
            mask = _cut(mask, first, places, dim=-2)
        return query, mask

    def _of_the_text(self, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The keys of the text and their columns of the mask. Columns beyond a sample's own text are masked."""
        if self.spans is None:
            return key[..., self._columns(), :], mask if mask is None else mask[..., self._columns()]
        tokens, first = self.weights.tokens, [span.start for span in self.spans]
        key = _cut(key, first, tokens, dim=-2)
        mask = mask if mask is None else _cut(mask, first, tokens, dim=-1)
        if all(span.length == tokens for span in self.spans):
            return key, mask
        lengths = torch.tensor([span.length for span in self.spans], device=key.device)
        own = (torch.arange(tokens, device=key.device) < lengths[:, None])[:, None, None]
        if mask is None or mask.dtype == torch.bool:
            return key, own if mask is None else mask & own
        return key, torch.where(own, mask, float("-inf"))

    def _placed(self, weights: Tensor, keys: int) -> Tensor:
        """The weights with one entry per key of the layer in place of one per text column."""
        placed = weights.new_zeros(*weights.shape[:-1], keys)
        for row, span in enumerate(self.spans or ()):
            placed[row, ..., span.start : span.start + span.length] = weights[row, ..., : span.length]
        return placed

    def _by_indicator(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, weights: Tensor, text: slice
    ) -> Tensor:
        """Attention whose values are the columns' weights: its output is the maps, and memory stays linear."""
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

    def _by_logits(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, weights: Tensor, text: slice
    ) -> Tensor:
        """The softmax of some columns: their logits minus the log-sum-exp of all. Checks the other methods."""
        logits = _logits(query, key, mask, scale)
        total = logits.logsumexp(dim=-1, keepdim=True)
        used = weights.sum((0, 1, 2)).nonzero().flatten()
        return (logits[..., text][..., used] - total).exp() @ weights[..., used].transpose(-2, -1)


def _cut(tensor: Tensor, first: Sequence[int], count: int, dim: Literal[-1, -2]) -> Tensor:
    """``count`` entries of an axis, from one first entry for all rows or one for each; beyond the end, the last one."""
    if len(set(first)) == 1 and first[0] + count <= tensor.shape[dim]:
        return tensor.narrow(dim, first[0], count)
    index = torch.tensor(first, device=tensor.device)[:, None] + torch.arange(count, device=tensor.device)
    index = index.clamp(max=tensor.shape[dim] - 1)[:, None]
    index = index[..., None] if dim == -2 else index[:, :, None]
    shape = [max(len(first), tensor.shape[0]), *tensor.shape[1:]]
    whole, shape[dim] = tensor.expand(shape), count
    return whole.gather(dim, index.expand(shape))


def _for_every_head(key: Tensor, query: Tensor) -> Tensor:
    """The keys repeated for the heads of the queries that share them (grouped-query attention)."""
    heads = query.shape[-3]
    return key if key.shape[-3] == heads else key.repeat_interleave(heads // key.shape[-3], dim=-3)


def recomputed(function: Callable[[Tensor, Tensor, Tensor | None], Tensor], attention: Attention) -> Tensor:
    """Return a function of queries, keys and mask, contiguous, whose backward computes it again.

    Args:
        function: Has to give the same result again. What it refers to stays in memory until the backward, also under
            gradient checkpointing.
        attention: The attention whose queries, keys and mask it is given. They are all that is kept.
    """
    result: Tensor = _Recomputed.apply(  # type: ignore[no-untyped-call]
        function, attention.query, attention.key, attention.attn_mask
    )
    return result


class _Recomputed(torch.autograd.Function):
    """See ``recomputed``. Unlike ``torch.utils.checkpoint`` it installs no hooks on the tensors of a whole forward."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(query, key, mask)
        return function(query, key, mask).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        query, key, mask = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:3]
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_(n) for tensor, n in zip((query, key), needed, strict=True)]
            result = ctx.function(*inputs, mask)
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            # The types differ if only the forward ran under autocast.
            found = iter(torch.autograd.grad(result, wanted, gradient.to(result.dtype)))
        of_query, of_key = (next(found) if n else None for n in needed)
        return None, of_query, of_key, None


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Scaled and masked products of queries and keys."""
    logits = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits


def _mean_probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    return _logits(query.float(), _for_every_head(key, query).float(), mask, scale).softmax(dim=-1).mean(dim=1)
