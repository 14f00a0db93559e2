"""Attention maps as the objectives see them, and what identifies the layout they came from.

A map is how much every place of the picture attends to an object's words. Maps keep their layers' own
resolution until an objective asks for one common side; how that is done belongs to the objective.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
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
    """One tapped attention layer: its module name, its heads, and how often the latents were halved."""

    name: str
    heads: int
    level: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Map height and width for latents of ``height`` x ``width``."""
        for _ in range(self.level):
            height, width = -(-height // 2), -(-width // 2)
        return height, width


@dataclass(frozen=True)
class TapPoint:
    """One attention module to read, where the text stands among its keys, and its block's self-attention.

    ``own`` is None where text and picture attend to each other in one module.
    """

    layer: MapLayer
    module: nn.Module
    text: Text = "only"
    own: nn.Module | None = None


# Picks the layers to read out of all, for latents of a height and a width.
Choice = Callable[[Sequence[MapLayer], int, int], Sequence[MapLayer]]


@dataclass(frozen=True)
class MapSpec:
    """What an objective wants to see.

    ``softmax``: "text" normalises over the text columns only, "joint" over all keys the layer has (the model's
    true attention). They differ only where text and picture share the keys (FLUX, SD3).
    ``columns``: "objects" gives the maps of the objects' columns, averaged; "every" a map of every text column.
    ``choose`` picks the layers (None: all of them); ``own`` asks for the picture's attention to itself there too.
    """

    softmax: Softmax = "text"
    columns: Literal["objects", "every"] = "objects"
    choose: Choice | None = None
    own: bool = False


@dataclass(frozen=True)
class Layout:
    """Everything that gives a map channel its meaning; a classifier is tied to one layout.

    Channels are the layers in order, and inside a layer its heads; with ``reduce`` "layer-mean" one a layer, the mean
    over its heads, and with "mean" a single one, the mean over all heads of all layers.
    """

    family: str
    layers: tuple[MapLayer, ...]
    side: int = 16
    renormalise: bool = True
    softmax: Softmax = "text"
    reduce: Reduce = "none"

    @property
    def channels(self) -> int:
        if self.reduce == "mean":
            return 1
        return len(self.layers) if self.reduce == "layer-mean" else sum(layer.heads for layer in self.layers)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change whenever a channel would mean something else."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        value = asdict(self)
        if self.reduce == "none":
            del value["reduce"]  # as in files from before there was a choice
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Layout:
        return cls(**{**value, "layers": tuple(MapLayer(**layer) for layer in value["layers"])})

    def require(self, other: Layout) -> None:
        """Raise MismatchError, naming the first difference, unless ``other`` has the same channels.

        Side, softmax, renormalisation and reduction are the classifier's own choice: any model's maps can be brought
        to them.
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
    """Maps of one forward: per layer (batch, objects, heads, height, width), in the layout's order, fp32.

    With every text column asked for, columns stand in the place of objects; ``objects`` (batch, objects, columns)
    are then the averaging weights of the objects' columns, and ``words`` (batch, columns) tells the columns of the
    prompt's words from start, end and padding. ``own`` holds, per layer, the picture's attention to itself, mean
    over heads: (batch, places asking, height, width). ``memory`` is, per sample, what the objective's verdict on
    it left behind when it last saw it in this pipeline call, or None.
    """

    layers: tuple[Tensor, ...]
    objects: Tensor | None = None
    words: Tensor | None = None
    own: tuple[Tensor, ...] = ()
    memory: tuple[Any, ...] = ()

    def stack(self, side: int, renormalise: bool = True, reduce: Reduce = "none") -> Tensor:
        """All maps at one resolution: (batch, objects, channels, side, side), the channels as ``Layout`` has them.

        Bilinear, corners not aligned, no antialiasing; with ``renormalise`` each map then sums to one.
        *Source:* paper section 3; conventions of the authors' code (official_implementation, 3.4).
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


def columns_to_weights(columns: Sequence[Sequence[Sequence[int]]], tokens: int) -> Tensor:
    """Token columns per sample and object -> averaging weights (batch, objects, tokens).

    Samples may name different numbers of objects; missing ones get zero weights and so zero maps.
    Raises PromptError for a column that the text does not have, and for an object without columns.
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
