"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from learn_to_steer import families
from learn_to_steer.classifier import ClassifierConfig
from learn_to_steer.classifier.network import Heads, Hidden, Inject, Layers
from learn_to_steer.collection import Manifest
from learn_to_steer.configs import TrainSettings
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout
from learn_to_steer.plain_text import shown

AUTO: Literal["auto"] = "auto"
MOST_LAYERS = 1000


def _checked_depth(value: Any) -> Any:
    if value is None or value == AUTO or (type(value) is int and 1 <= value <= MOST_LAYERS):
        return value
    raise ValueError(f"depth cannot be {shown(value)}: it is a number of layers from 1 to {MOST_LAYERS}, or {AUTO}")


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """Settings of the optimiser and sizes of the network.

    The optimiser is the authors' for Stable Diffusion. The network is smaller than theirs, which has ``width`` 256,
    ``layers`` 2, ``hidden`` 128 and ``dropout`` 0.3.

    Source:
        Paper appendix C.9 and the authors' training settings; "balanced" is new here.

    Raises:
        DataError: A setting has the wrong type or is out of range.
    """

    depth: Annotated[int | Literal["auto"] | None, PlainValidator(_checked_depth)] = None
    """How many layers are read, those that the denoiser runs first: passes end after them. None: all of them. "auto":
    the fewest that are about as accurate as the best, see ``depth_choice``."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.05
    """Weight decay of AdamW, on every parameter."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor on the learning rate when the validation loss has stopped improving."""
    plateau_patience: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    """Epochs without improvement before the learning rate is reduced."""
    layers: Layers = 2
    """Layers of the transformer over channels."""
    heads: Heads = 2
    """Attention heads of the transformer over channels, and of the query that pools them."""
    hidden: Hidden = 128
    """Hidden width of the feed-forward blocks of the transformer over channels."""
    head_layers: Layers = 2
    """Layers of the transformer in the head."""
    head_heads: Heads = 4
    """Attention heads of the transformer in the head."""
    head_hidden: Hidden = 128
    """Hidden width of the feed-forward blocks in the head."""
    inject: Inject = "mid"
    """Where the time embedding is added: "mid": before every layer; "pre": before the first; "none": nowhere."""
    extractor: Literal["attention", "mean"] = "attention"
    """How the channels of an object are pooled: by a learned query, or by their mean."""

    def read_layers(self, manifest: Manifest) -> tuple[Layout, list[int]]:
        """Return the layout of the layers to read, and their channels as indices of those of a collection.

        With a depth that is still to be chosen, these are all layers.

        Args:
            manifest: The manifest of the collection.

        Raises:
            DataError: The collection has fewer layers than ``depth``.
        """
        layout = Layout.from_dict(manifest.layout)
        layers = layout.layers
        if isinstance(self.depth, int):
            if self.depth > len(layers):
                raise DataError(f"the maps are of {len(layers)} layers, but depth is {self.depth}; make it smaller")
            layers = families.family(layout.family).running_order(layers)[: self.depth]
        return layout.some(layers)

    def classifier(self, manifest: Manifest) -> ClassifierConfig:
        """Return the config of a classifier for the maps of a collection.

        Args:
            manifest: The manifest of the collection.
        """
        layout, channels = self.read_layers(manifest)
        return ClassifierConfig(
            classes=tuple(manifest.classes),
            channels=len(channels),
            times=len(manifest.levels),
            levels=tuple(manifest.levels),
            side=layout.side,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            query_heads=self.heads,
            head_layers=self.head_layers,
            head_heads=self.head_heads,
            head_hidden=self.head_hidden,
            dropout=self.dropout,
            inject=self.inject,
            extractor=self.extractor,
            layout=layout.as_dict(),
            trained_on={"model": str(manifest.settings.get("model", "")), "weights": manifest.weights},
        )
