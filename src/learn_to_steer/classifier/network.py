"""The network of the relation classifier.

Source:
    Paper appendix C.9; sizes and connections as in the authors' checkpoints. Unlike there, the classes may include
    diagonals, the time embedding is indexed by noise level (by denoising step only in imported checkpoints), and the
    config records the layout of the maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from learn_to_steer.errors import DataError, MismatchError
from learn_to_steer.maps import Layout
from learn_to_steer.plain_text import shown
from learn_to_steer.validation import check_fields

Inject = Literal["mid", "pre", "none"]
# A config may come from a stranger's file. These limits keep a network small enough to be made, and are far above what
# any model needs.
Name = Annotated[str, Field(min_length=1, max_length=64)]
Channels = Annotated[int, Field(ge=1, le=16_384)]
Times = Annotated[int, Field(ge=1, le=10_000)]
Level = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]
Side = Annotated[int, Field(ge=1, le=128)]
Width = Annotated[int, Field(ge=2, le=4096, multiple_of=2)]
Layers = Annotated[int, Field(ge=1, le=64)]
Heads = Annotated[int, Field(ge=1, le=256)]
Hidden = Annotated[int, Field(ge=1, le=16_384)]


@dataclass(frozen=True)
class ClassifierConfig:
    """Classes, noise levels and sizes of the network. The defaults are the authors' for Stable Diffusion.

    Raises:
        DataError: A field has the wrong type or is out of range, or two of them contradict each other.
    """

    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=256)]
    """Names of the relations, in the order of the logits."""
    channels: Channels
    """The largest number of maps per object."""
    times: Times
    """The number of rows of the time embedding."""
    levels: Annotated[tuple[Level, ...], Field(max_length=10_000)] = ()
    """The noise levels in [0, 1] of the rows of the time embedding."""
    steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=10_000)] = ()
    """Only in imported checkpoints, instead of ``levels``: the denoising steps that it was trained on."""
    side: Side = 16
    """Width and height of a map."""
    width: Width = 256
    """Width of both transformers."""
    layers: Layers = 2
    """Layers of the transformer over channels."""
    heads: Heads = 2
    """Attention heads of the transformer over channels."""
    hidden: Hidden = 128
    """Hidden width of the feed-forward blocks of the transformer over channels."""
    query_heads: Heads = 2
    """Attention heads of the query that pools the channels."""
    head_layers: Layers = 2
    """Layers of the transformer in the head."""
    head_heads: Heads = 4
    """Attention heads of the transformer in the head."""
    head_hidden: Hidden = 128
    """Hidden width of the feed-forward blocks in the head."""
    time_width: Annotated[int, Field(ge=1, le=4096)] = 16
    """Width of the time embedding in the head."""
    fc_widths: tuple[Hidden, Hidden] = (256, 128)
    """Widths of the linear layers before the logits."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout probability of all layers."""
    inject: Inject = "mid"
    """Where the time embedding is added: "mid": before every layer; "pre": before the first; "none": nowhere."""
    extractor: Literal["attention", "mean"] = "attention"
    """How the channels of an object are pooled: by a learned query, or by their mean."""
    layout: dict[str, Any] = field(default_factory=dict)
    """The ``Layout`` of the maps; empty when it is not known."""
    trained_on: dict[str, str] = field(default_factory=dict)
    """The model whose maps it was trained on: its name ("model") and the digest of its denoiser's weights ("weights",
    see ``digests.sampled_weights``); empty when it is not known."""
    temperatures: Annotated[tuple[Temperature, ...], Field(max_length=10_000)] = ()
    """What the logits are divided by before a probability is computed, per noise level; empty for 1 everywhere."""

    def __post_init__(self) -> None:
        check_fields(self, "the classifier's", examples={"layout": "a mapping, as Layout.as_dict returns it"})
        problem = self._contradiction()
        if problem:
            raise DataError(f"the classifier's {problem}")

    def _contradiction(self) -> str:
        """What is wrong with fields that are each possible by themselves; "" if nothing is."""
        if odd := next((name for name in self.classes if not name.isprintable() or name != name.strip()), None):
            return f"classes cannot have the name {shown(odd)}: a relation is plain words"
        if len(set(self.classes)) < len(self.classes):
            return f"classes have a name twice: {shown(self.classes)}"
        for name in ("heads", "query_heads", "head_heads") if self.extractor == "attention" else ("head_heads",):
            if self.width % getattr(self, name):
                return f"width {self.width} must be divisible by {name}, {getattr(self, name)}"
        if len(self.levels) > self.times:
            return f"levels are {len(self.levels)}, more than its {self.times} times"
        if self.temperatures and len(self.temperatures) != len(self.levels):
            return f"temperatures are {len(self.temperatures)}, but its levels {len(self.levels)}"
        if self.temperatures and self.steps:
            return "temperatures are those of noise levels, but it was trained at steps"
        if list(self.steps) != sorted(set(self.steps)) or (self.steps and self.steps[-1] >= self.times):
            return f"trained steps {shown(self.steps)} are not among its {self.times} steps, in ascending order"
        if self.layout and (maps := Layout.from_dict(self.layout).channels) > self.channels:
            return f"layout has {maps} maps, more than its {self.channels} channels"
        return ""

    def row(self, level: float, step: int, steps: int) -> int:
        """Return the row of the time embedding for a denoising step.

        It is the row of the nearest noise level. Imported checkpoints are indexed by step instead: the step is scaled
        to the number of steps in training, so that it stands for the same noise level, and rounded up to the next
        trained step (down to the last one beyond it). The authors do not scale, and use row 0 beyond the last.

        Args:
            level: The noise level in [0, 1].
            step: The index of the denoising step.
            steps: The number of denoising steps.
        """
        if self.steps:
            scaled = step * self.times / steps
            return next((trained for trained in self.steps if trained >= scaled), self.steps[-1])
        return min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - level))

    def temperature(self, row: int) -> float:
        """Return what the logits are divided by before a probability is computed.

        Args:
            row: The row of the time embedding; see ``row``.
        """
        return self.temperatures[row] if self.temperatures else 1.0


def _sinusoids(length: int, width: int) -> Tensor:
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(1, length, width)
    table[0, :, 0::2], table[0, :, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table


class _Positions(nn.Module):
    pe: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("pe", _sinusoids(length, width))


def _encoder(width: int, heads: int, hidden: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class ObjectExtractor(nn.Module):
    """Pools all maps of one object into one: a transformer over the channels, then attention with a learned query.

    Args:
        config: Classes, noise levels and sizes.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        places, width = config.side**2, config.width
        self.inject = config.inject
        self.input_projection = nn.Linear(places, width)
        self.positional_encoding = _Positions(config.channels, width)
        if config.inject != "none":
            self.timestep_embedding = nn.Embedding(config.times, width)
        self.transformer = _encoder(width, config.heads, config.hidden, config.layers, config.dropout)
        self.query_vector = nn.Parameter(torch.randn(1, 1, width))
        self.layer_attention = nn.MultiheadAttention(width, config.query_heads, batch_first=True)
        self.output_projection = nn.Linear(width, places)

    def forward(self, maps: Float[Tensor, "n channels places"], row: Int64[Tensor, " n"]) -> Float[Tensor, "n places"]:
        """Pool the maps of an object.

        Args:
            maps: The maps, flattened to ``side**2`` places.
            row: The row of the time embedding.
        """
        hidden = self.input_projection(maps) + self.positional_encoding.pe[:, : maps.shape[1]]
        time = self.timestep_embedding(row)[:, None] if self.inject != "none" else None
        if time is not None and self.inject == "pre":
            hidden = hidden + time
        for layer in self.transformer.layers:
            # Added to the residual stream before every layer, so it accumulates, as in the authors' network.
            hidden = layer(hidden + time if time is not None and self.inject == "mid" else hidden)
        query = self.query_vector.expand(len(hidden), -1, -1)
        pooled, _ = self.layer_attention(query, hidden, hidden, need_weights=False)
        projected: Tensor = self.output_projection(pooled[:, 0])
        return projected


class MeanExtractor(nn.Module):
    """Pools all maps of one object into their mean, as in the authors' prototype for diagonals."""

    def forward(self, maps: Float[Tensor, "n channels places"], row: Int64[Tensor, " n"]) -> Float[Tensor, "n places"]:
        """Average the maps of an object.

        Args:
            maps: The maps, flattened to ``side**2`` places.
            row: Not used.
        """
        return maps.mean(dim=1)


class RelationHead(nn.Module):
    """Computes logits over the classes from the pooled maps of two objects and the noise level.

    Args:
        config: Classes, noise levels and sizes.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        places, width = config.side**2, config.width
        self.timestep_embedding = nn.Embedding(config.times, config.time_width)
        self.positional_encoding = _Positions(places, width)
        self.projection = nn.Linear(2 * places, width)
        self.transformer = _encoder(width, config.head_heads, config.head_hidden, config.head_layers, config.dropout)
        wide, narrow = config.fc_widths
        self.fc = nn.Sequential(
            nn.Linear(width + config.time_width, wide),
            nn.LayerNorm(wide),
            nn.LeakyReLU(0.1),
            nn.Dropout(config.dropout),
            nn.Linear(wide, narrow),
            nn.LayerNorm(narrow),
            nn.LeakyReLU(0.1),
            nn.Dropout(config.dropout),
            nn.Linear(narrow, len(config.classes)),
        )

    def forward(
        self, subject: Float[Tensor, "n places"], reference: Float[Tensor, "n places"], row: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """Return the logits.

        Args:
            subject: The pooled map of the subject.
            reference: The pooled map of the object.
            row: The row of the time embedding.
        """
        joined = self.projection(torch.cat([subject, reference], dim=-1))[:, None]
        hidden = joined + self.positional_encoding.pe[:, :1]
        for layer in self.transformer.layers:
            hidden = layer(hidden)
        logits: Tensor = self.fc(torch.cat([hidden[:, 0], self.timestep_embedding(row)], dim=-1))
        return logits


class RelationClassifier(nn.Module):
    """Predicts the relation of two objects from their attention maps.

    Args:
        config: Classes, noise levels and sizes.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.object_extractor: nn.Module = (
            ObjectExtractor(config) if config.extractor == "attention" else MeanExtractor()
        )
        self.relation_classifier = RelationHead(config)

    def forward(
        self, maps: Float[Tensor, "n 2 channels side side"], row: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """Return logits over ``config.classes``.

        Args:
            maps: The maps of the subject, then those of the object.
            row: The row of the time embedding; see ``ClassifierConfig.row``.

        Raises:
            MismatchError: There are more channels than ``config.channels``, or the maps have another side.
        """
        n, _, channels = maps.shape[:3]
        if channels > self.config.channels or maps.shape[-1] != self.config.side:
            raise MismatchError(
                f"the classifier reads up to {self.config.channels} maps of side {self.config.side}, "
                f"got {channels} of side {maps.shape[-1]}; use the classifier trained for this model"
            )
        both = self.object_extractor(maps.flatten(3).flatten(0, 1), row.repeat_interleave(2))
        both = both.reshape(n, 2, -1)
        logits: Tensor = self.relation_classifier(both[:, 0], both[:, 1], row)
        return logits

    @property
    def layout(self) -> Layout | None:
        """The layout of the maps that it was trained on; None if it is not known."""
        return Layout.from_dict(self.config.layout) if self.config.layout else None
