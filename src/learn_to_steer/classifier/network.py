"""The relation classifier's network.

*Source:* paper appendix C.9; sizes and wiring as the authors built them (official_implementation, 2.1-2.4).
*Differs:* the head also has the diagonals when its classes say so; time is a table of noise levels, loop
indices exist only for imported checkpoints; the file records the layout of the maps it reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from learn_to_steer.errors import MismatchError
from learn_to_steer.maps import Layout

Inject = Literal["mid", "pre", "none"]


@dataclass(frozen=True)
class ClassifierConfig:
    """Sizes of the network, its classes and its clock. Defaults are the authors' for Stable Diffusion.

    ``levels`` are the noise levels (0-1) the time table was trained at; ``steps`` instead are the loop
    indices of an imported checkpoint, of which the smallest one not below the current is used.
    """

    classes: tuple[str, ...]
    channels: int
    times: int
    levels: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    side: int = 16
    width: int = 256
    layers: int = 2
    heads: int = 2
    hidden: int = 128
    query_heads: int = 2
    head_layers: int = 2
    head_heads: int = 4
    head_hidden: int = 128
    time_width: int = 16
    fc_widths: tuple[int, int] = (256, 128)
    dropout: float = 0.3
    inject: Inject = "mid"
    extractor: Literal["attention", "mean"] = "attention"
    layout: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a clock that cannot be read."""
        if self.inject not in get_args(Inject):
            raise ValueError(f"inject is one of {', '.join(get_args(Inject))}, not {self.inject!r}")
        # A string among the levels would only be found where pictures are drawn.
        if any(not isinstance(level, int | float) or not 0 <= level <= 1 for level in self.levels):
            raise ValueError(f"levels are numbers from 0 to 1, not {self.levels!r}")

    def row(self, level: float, step: int, steps: int) -> int:
        """Row of the time table for a noise level (nearest trained one), or for the loop index if imported.

        The index is of ``steps``, and counts as if there were as many as in training; the authors take it as it is,
        which means another noise level. Beyond the last trained index they fall back to row 0; the last one is used
        instead.
        """
        if self.steps:
            meant = step * self.times / steps
            return next((known for known in self.steps if known >= meant), self.steps[-1])
        return min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - level))


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
    """All maps of one object -> one map: a transformer over the channels, then one learned query."""

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

    def forward(self, maps: Tensor, row: Tensor) -> Tensor:
        """``maps`` (n, channels, places), ``row`` (n,) -> (n, places)."""
        hidden = self.input_projection(maps) + self.positional_encoding.pe[:, : maps.shape[1]]
        time = self.timestep_embedding(row)[:, None] if self.inject != "none" else None
        if time is not None and self.inject == "pre":
            hidden = hidden + time
        for layer in self.transformer.layers:
            # Added to the residual stream before every layer, so it accumulates (the authors' "mid").
            hidden = layer(hidden + time if time is not None and self.inject == "mid" else hidden)
        query = self.query_vector.expand(len(hidden), -1, -1)
        pooled, _ = self.layer_attention(query, hidden, hidden, need_weights=False)
        projected: Tensor = self.output_projection(pooled[:, 0])
        return projected


class MeanExtractor(nn.Module):
    """The authors' prototype for diagonals: the plain mean over channels, nothing learned."""

    def forward(self, maps: Tensor, row: Tensor) -> Tensor:
        return maps.mean(dim=1)


class RelationHead(nn.Module):
    """Two object maps and the time -> logits over the classes."""

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

    def forward(self, subject: Tensor, reference: Tensor, row: Tensor) -> Tensor:
        joined = self.projection(torch.cat([subject, reference], dim=-1))[:, None]
        hidden = joined + self.positional_encoding.pe[:, :1]
        for layer in self.transformer.layers:
            hidden = layer(hidden)
        logits: Tensor = self.fc(torch.cat([hidden[:, 0], self.timestep_embedding(row)], dim=-1))
        return logits


class RelationClassifier(nn.Module):
    """Which relation do the maps of two objects show? Logits over ``config.classes``."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.object_extractor: nn.Module = (
            ObjectExtractor(config) if config.extractor == "attention" else MeanExtractor()
        )
        self.relation_classifier = RelationHead(config)

    def forward(self, maps: Tensor, row: Tensor) -> Tensor:
        """``maps`` (n, 2, channels, side, side): subject then object; ``row`` (n,) of the time table.

        Raises MismatchError when there are more channels than the network has positions for.
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
        """Layout of the maps it was trained on; None for an imported file, which does not record it."""
        return Layout.from_dict(self.config.layout) if self.config.layout else None
