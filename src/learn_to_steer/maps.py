"""Attention maps as the losses see them, and the layout that says what each of their channels means.

A map says how much every place of the image attends to an object's words. Maps keep the resolution of their layers;
a loss that needs a common one resizes them (``AttentionMaps.stack``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learn_to_steer.errors import DataError, MismatchError, PromptError, UnsupportedError
from learn_to_steer.plain_text import shown
from learn_to_steer.validation import check_fields

Softmax = Literal["text", "joint"]
SOFTMAXES: tuple[Softmax, ...] = ("text", "joint")
Text = Literal["only", "first", "last"]
Reduce = Literal["none", "layer-mean", "mean"]
REDUCTIONS: tuple[Reduce, ...] = ("none", "layer-mean", "mean")


@dataclass(frozen=True)
class MapLayer:
    """One attention layer whose maps are read.

    Attributes:
        name: Name of its module in the denoiser.
        heads: Number of attention heads.
        level: How many times the latents were halved before this layer.
    """

    name: Annotated[str, Field(min_length=1, max_length=500)]
    heads: Annotated[int, Field(ge=1, le=1024)]
    level: Annotated[int, Field(ge=0, le=16)]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the layer's maps for latents of ``height`` x ``width``."""
        for _ in range(self.level):
            height, width = -(-height // 2), -(-width // 2)
        return height, width


@dataclass(frozen=True)
class HookPoint:
    """The module at which the maps of one layer are read.

    Attributes:
        layer: The layer.
        module: Its attention module.
        text: Where the text stands among the module's keys; "only" for cross-attention. Where ``Family.spans`` gives
            the positions of every sample, "first" and "last" mean the same.
        self_attention: The self-attention module of the same block; None where text and image attend to each other in
            one module.
    """

    layer: MapLayer
    module: nn.Module
    text: Text = "only"
    self_attention: nn.Module | None = None


@dataclass(frozen=True)
class TextSpan:
    """Where the text and the image of one sample stand in the sequence of an attention layer.

    Attributes:
        start: Position of the first key of the sample's own text.
        length: Number of its text columns. Column ``n`` is the key at ``start + n``.
        image: Position of the image's first query, for layers in which text and image are one sequence.
    """

    start: int
    length: int
    image: int = 0


# Selects the layers to read, given all of them, height and width of the latents.
Choice = Callable[[Sequence[MapLayer], int, int], Sequence[MapLayer]]


@dataclass(frozen=True)
class MapSpec:
    """Which maps a loss reads.

    Attributes:
        softmax: "text" normalises over the text columns only, "joint" over all keys of the layer (the model's true
            attention). They differ only where text and image share the keys (FLUX, SD3).
        columns: "objects": one map per object, the mean over its text columns. "every": one map per text column.
        choose: Selects the layers to read; None reads all of them.
        self_attention: Whether to read the self-attention of these layers as well.
    """

    softmax: Softmax = "text"
    columns: Literal["objects", "every"] = "objects"
    choose: Choice | None = None
    self_attention: bool = False


@dataclass(frozen=True)
class Layout:
    """Everything that gives a map channel its meaning; a classifier is tied to one layout.

    Attributes:
        family: The model family's name.
        layers: In channel order; inside a layer the channels are its heads.
        side: Height and width that maps are resized to.
        renormalise: Whether each map sums to one afterwards.
        softmax: As in ``MapSpec``.
        reduce: "none" keeps a channel per head, "layer-mean" one per layer (the mean over its heads), "mean" a single
            one (the mean over all heads of all layers).

    Raises:
        DataError: A value has the wrong type or is out of range.
    """

    family: Annotated[str, Field(min_length=1, max_length=64)]
    layers: Annotated[tuple[MapLayer, ...], Field(min_length=1, max_length=1000)]
    side: Annotated[int, Field(ge=1, le=128)] = 16
    renormalise: bool = True
    softmax: Softmax = "text"
    reduce: Reduce = "none"

    def __post_init__(self) -> None:
        check_fields(self, "the layout's")
        for layer in self.layers:
            check_fields(layer, "the attention layer's")

    @property
    def channels(self) -> int:
        """Number of maps per object."""
        if self.reduce == "mean":
            return 1
        return len(self.layers) if self.reduce == "layer-mean" else sum(layer.heads for layer in self.layers)

    @property
    def pair_bytes(self) -> int:
        """Bytes that the maps of two objects at one noise level take in a collection, in fp16."""
        return 2 * self.channels * self.side**2 * 2

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change whenever a channel would mean something else."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Return what is written into the header of a classifier file."""
        value = asdict(self)
        if self.reduce == "none":
            del value["reduce"]  # the fingerprints of older files, which do not have it, stay valid
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Layout:
        """Return the layout that ``as_dict`` was called on.

        Raises:
            DataError: ``value`` is not what ``as_dict`` returns.
        """
        try:
            return cls(**{**value, "layers": tuple(MapLayer(**layer) for layer in value["layers"])})
        except (KeyError, TypeError) as error:  # not a mapping, or its keys are others
            raise DataError(f"the layout cannot be {shown(value)}: {error}") from error

    def some(self, layers: Sequence[MapLayer]) -> tuple[Layout, list[int]]:
        """Return the layout of some of the layers, and its channels as indices of the channels of this one.

        Args:
            layers: Layers of this layout, in any order.

        Raises:
            UnsupportedError: The channels are means over all layers.
        """
        if self.reduce == "mean" and set(layers) != set(self.layers):
            raise UnsupportedError(
                "these maps are means over all layers, of which none can be left out; collect again with --reduce none"
            )
        if self.reduce == "mean":
            return self, [0]
        kept, channels, start = [], list[int](), 0
        for layer in self.layers:
            width = 1 if self.reduce == "layer-mean" else layer.heads
            if layer in layers:
                kept.append(layer)
                channels += range(start, start + width)
            start += width
        return replace(self, layers=tuple(kept)), channels

    def require(self, other: Layout) -> None:
        """Require that a model has the layers of this layout, perhaps among others.

        Side, softmax, renormalisation and reduction need not agree: they are applied to the maps after the capture.

        Args:
            other: The layout of the model.

        Raises:
            MismatchError: Family or layers differ; the message says which.
        """
        if self.family != other.family:
            raise MismatchError(f"the classifier was made for the family {self.family}, this model is {other.family}")
        wanted = set(self.layers)
        if self.layers == tuple(layer for layer in other.layers if layer in wanted):
            return
        raise MismatchError(
            f"the classifier reads {self.channels} attention maps (layout {self.fingerprint}), this model gives "
            f"{other.channels} (layout {other.fingerprint}); use the classifier trained for this model"
        )


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of one forward, fp32.

    Attributes:
        layers: One tensor per layer, in the layout's order. With ``columns="every"``, the second axis is the text
            columns instead of the objects.
        objects: With ``columns="every"``, the weights that average the columns of each object.
        words: With ``columns="every"``, which columns hold words of the prompt (not start, end or padding).
        self_attention: Per layer, how much each place attends to every other, mean over heads.
        memory: Per image, what the loss returned as ``LossOutput.memory`` when it last saw the image in this pipeline
            call; None before.
    """

    layers: tuple[Float[Tensor, "batch objects heads height width"], ...]
    objects: Float[Tensor, "batch objects columns"] | None = None
    words: Bool[Tensor, "batch columns"] | None = None
    self_attention: tuple[Float[Tensor, "batch places height width"], ...] = ()
    memory: tuple[Any, ...] = ()

    def stack(
        self, side: int, renormalise: bool = True, reduce: Reduce = "none"
    ) -> Float[Tensor, "batch objects channels side side"]:
        """Return all maps at one resolution, in the channel order of ``Layout``.

        Maps are resized bilinearly, without aligned corners and without antialiasing.

        Args:
            side: Height and width of the result.
            renormalise: Whether each map is divided by its sum afterwards.
            reduce: As in ``Layout``.

        Source:
            Paper section 3; resizing and renormalisation as in the authors' code.
        """
        resized = []
        for layer in self.layers:
            batch, objects, heads = layer.shape[:3]
            flat = layer.reshape(batch * objects, heads, *layer.shape[3:])
            if flat.shape[-2:] != (side, side):
                flat = functional.interpolate(flat, (side, side), mode="bilinear", align_corners=False)
            if renormalise:
                flat = flat / (flat.sum((-2, -1), keepdim=True) + 1e-8)
            flat = flat.reshape(batch, objects, heads, side, side)
            resized.append(flat.mean(dim=2, keepdim=True) if reduce == "layer-mean" else flat)
        stacked = torch.cat(resized, dim=2)
        return stacked.mean(dim=2, keepdim=True) if reduce == "mean" else stacked


def columns_to_weights(
    columns: Sequence[Sequence[Sequence[int]]], tokens: int, spans: Sequence[TextSpan] | None = None
) -> Float[Tensor, "batch objects tokens"]:
    """Return the weights that average the text columns of each object.

    Args:
        columns: Per prompt and object, the text columns (token positions) of its name. Negative ones count from the
            end, as in Python, for texts that are padded on the left. Prompts may have different numbers of objects;
            missing ones get zero weights and so zero maps.
        tokens: Number of text columns.
        spans: Per prompt, how many of them are its own; None: all.

    Raises:
        PromptError: A column is outside the text, or an object has no columns.
    """
    objects = max((len(sample) for sample in columns), default=0)
    weights = torch.zeros(len(columns), objects, tokens)
    for b, sample in enumerate(columns):
        for o, its_columns in enumerate(sample):
            own = spans[b].length if spans is not None else tokens
            if not its_columns or not all(-own <= column < own for column in its_columns):
                raise PromptError(
                    f"object {o + 1} of prompt {b + 1} is in the text columns {list(its_columns)}, but the text has "
                    f"{own} columns (0 to {own - 1}); name it earlier in the prompt, or give other columns"
                )
            weights[b, o, [column % own for column in its_columns]] = 1 / len(its_columns)
    return weights
