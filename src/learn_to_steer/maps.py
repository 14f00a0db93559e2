"""Attention maps as the losses see them, and the layout that tells what each of them means.

A map is how much every place of the image attends to an object's words. Maps keep the resolution of their layers until
a loss asks for a common one; how that is done belongs to the loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from learn_to_steer.errors import MismatchError, PromptError

Softmax = Literal["text", "joint"]
SOFTMAXES: tuple[Softmax, ...] = ("text", "joint")
Text = Literal["only", "first", "last"]
Reduce = Literal["none", "layer-mean", "mean"]
REDUCTIONS: tuple[Reduce, ...] = ("none", "layer-mean", "mean")


@dataclass(frozen=True)
class MapLayer:
    """One attention layer whose maps are read.

    Attributes:
        name: Of its module in the denoiser.
        heads: Number of its heads.
        level: How often the latents were halved before it.
    """

    name: str
    heads: int
    level: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of its maps for latents of ``height`` x ``width``."""
        for _ in range(self.level):
            height, width = -(-height // 2), -(-width // 2)
        return height, width


@dataclass(frozen=True)
class HookPoint:
    """Where the maps of one layer are read.

    Attributes:
        layer: The layer.
        module: Its attention module.
        text: Where the text stands among the module's keys; "only" for cross-attention.
        self_attention: The self-attention module of the same block; None where text and image attend to each other in
            one module.
    """

    layer: MapLayer
    module: nn.Module
    text: Text = "only"
    self_attention: nn.Module | None = None


# Picks the layers to read out of all, for latents of a height and a width.
Choice = Callable[[Sequence[MapLayer], int, int], Sequence[MapLayer]]


@dataclass(frozen=True)
class MapSpec:
    """Which maps a loss wants to see.

    Attributes:
        softmax: "text" normalises over the text columns only, "joint" over all keys of the layer (the model's true
            attention). They differ only where text and image share the keys (FLUX, SD3).
        columns: "objects" gives one map per object, the mean over its text columns; "every" one per text column.
        choose: Picks the layers to read; None reads all of them.
        self_attention: Whether to read these layers' self-attention as well.
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
    """

    family: str
    layers: tuple[MapLayer, ...]
    side: int = 16
    renormalise: bool = True
    softmax: Softmax = "text"
    reduce: Reduce = "none"

    @property
    def channels(self) -> int:
        """Number of maps per object."""
        if self.reduce == "mean":
            return 1
        return len(self.layers) if self.reduce == "layer-mean" else sum(layer.heads for layer in self.layers)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change whenever a channel would mean something else."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """As it is written into the header of a classifier."""
        value = asdict(self)
        if self.reduce == "none":
            del value["reduce"]  # as in files from before there was a choice
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Layout:
        """The layout that ``as_dict`` wrote."""
        return cls(**{**value, "layers": tuple(MapLayer(**layer) for layer in value["layers"])})

    def require(self, other: Layout) -> None:
        """Require that ``other``, the layout of a model, has the same layers.

        Side, softmax, renormalisation and reduction are the classifier's own choice: the maps of any model can be
        brought to them.

        Raises:
            MismatchError: Naming the first difference.
        """
        if self.family != other.family:
            raise MismatchError(f"the classifier was made for the family {self.family}, this model is {other.family}")
        if self.layers == other.layers:
            return
        raise MismatchError(
            f"the classifier reads {self.channels} attention maps (layout {self.fingerprint}), this model gives "
            f"{other.channels} (layout {other.fingerprint}); use the classifier trained for this model"
        )


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of one forward, fp32.

    Attributes:
        layers: One tensor per layer, in the layout's order. If a loss asks for every text column, columns stand in the
            place of objects.
        objects: The averaging weights of the objects' columns, if every column was asked for.
        words: Which columns hold words of the prompt (not start, end or padding), if every column was asked for.
        self_attention: Per layer, how much each place attends to every other, mean over heads.
        memory: Per image, what the loss left behind when it last saw the image in this pipeline call, or None.
    """

    layers: tuple[Float[Tensor, "batch objects heads height width"], ...]
    objects: Float[Tensor, "batch objects columns"] | None = None
    words: Bool[Tensor, "batch columns"] | None = None
    self_attention: tuple[Float[Tensor, "batch places height width"], ...] = ()
    memory: tuple[Any, ...] = ()

    def stack(
        self, side: int, renormalise: bool = True, reduce: Reduce = "none"
    ) -> Float[Tensor, "batch objects channels side side"]:
        """All maps at one resolution, their channels as ``Layout`` has them.

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
    columns: Sequence[Sequence[Sequence[int]]], tokens: int
) -> Float[Tensor, "batch objects tokens"]:
    """Averaging weights of text columns.

    Args:
        columns: Per prompt and object, the text columns (token positions) of its name. Prompts may name different
            numbers of objects; missing ones get zero weights and so zero maps.
        tokens: Number of text columns.

    Raises:
        PromptError: For a column that the text does not have, and for an object without columns.
    """
    objects = max((len(sample) for sample in columns), default=0)
    weights = torch.zeros(len(columns), objects, tokens)
    for b, sample in enumerate(columns):
        for g, group in enumerate(sample):
            if not group or not all(0 <= column < tokens for column in group):
                raise PromptError(
                    f"object {g + 1} of prompt {b + 1} stands in the text columns {list(group)}, but the text has "
                    f"{tokens} columns (0 to {tokens - 1}); name it earlier in the prompt, or give other columns"
                )
            weights[b, g, list(group)] = 1 / len(group)
    return weights
