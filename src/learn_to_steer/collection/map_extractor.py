"""Runs the denoiser on labelled images; returns the maps and rows of one shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learn_to_steer import inversion
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.contrastive_prompts import ContrastivePrompt, prompt_pair
from learn_to_steer.conditioning import record
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Family
from learn_to_steer.maps import MapSpec, TextSpan, columns_to_weights
from learn_to_steer.sources import LabelledImage

NumberedImage = tuple[int, LabelledImage]


class ShardContent(NamedTuple):
    """What is written for one shard; see ``shards.write_shard``."""

    tensors: dict[str, Tensor]
    rows: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    pictures: list[dict[str, Any]] | None = None
    drawn: dict[str, Any] | None = None


class MapExtractor:
    """Runs the denoiser of a pipeline on noised images and keeps the attention maps of subject and object.

    Args:
        pipe: The diffusers pipeline.
        family: Its family.
        config: What to collect.
        times: The times of the noise levels, as the denoiser takes them, noisiest first.
        levels: The noise levels in (0, 1].
        classes: Names of the relations, in the order of their labels.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        config: CollectConfig,
        times: Float[Tensor, " levels"],
        levels: Sequence[float],
        classes: Sequence[str],
    ) -> None:
        self.pipe, self.family, self.config = pipe, family, config
        self.times, self.levels, self.classes = times, tuple(levels), tuple(classes)
        self.denoiser: nn.Module = getattr(pipe, family.denoiser)
        self.layout = replace(
            family.layout(self.denoiser, config.map_side), reduce=config.reduce, softmax=config.softmax
        )
        self.invert = inversion.load(config.inversion)
        self._capture = AttentionCapture(family.attention_layers(self.denoiser), spec=MapSpec(self.layout.softmax))

    def shard(self, images: Sequence[NumberedImage], count: Callable[[int], None]) -> ShardContent:
        """Return the content of one shard.

        Args:
            images: The images with their numbers in the collection.
            count: Called after every batch with its number of images.

        Returns:
            The tensors of the shard, its rows, and its dropped images.
        """
        parts: list[dict[str, Tensor]] = []
        rows: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        for start in range(0, len(images), self.config.batch):
            batch = images[start : start + self.config.batch]
            content = self._batch(batch)
            parts.append(content.tensors)
            rows += content.rows
            dropped += content.dropped
            count(len(batch))
        return ShardContent({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, rows, dropped)

    def estimate(self, images: Sequence[NumberedImage]) -> tuple[int, float]:
        """Estimate, from the first image, the disk space and the time that images take.

        Args:
            images: The images with their numbers in the collection.

        Returns:
            The size of their maps in bytes, and an upper bound of the time in seconds.
        """
        began = time.monotonic()
        self._batch(images[:1])
        seconds = time.monotonic() - began
        rows = 2 * len(self.levels)
        return rows * self.layout.pair_bytes * len(images), seconds * len(images)

    @torch.no_grad()
    def _batch(self, batch: Sequence[NumberedImage]) -> ShardContent:
        pairs = [prompt_pair(image, self.classes, self.config.seed) for _, image in batch]
        prompts = [prompt for pair in pairs for prompt in pair]
        pixels = torch.stack([image.pixels() for _, image in batch])
        clean = self.family.encode(self.pipe, pixels).repeat_interleave(2, dim=0)
        texts = [prompt.text for prompt in prompts]
        recording = record(self.pipe, self.family, texts, pixels.shape[-2], pixels.shape[-1], self.config.arguments)
        if recording.batch != len(prompts):
            raise UnsupportedError(
                f"the pipeline calls its denoiser with {recording.batch} rows for {len(prompts)} prompts; "
                "maps are collected from the conditional batch alone (turn off perturbed-attention guidance)"
            )
        spans = self.family.spans(self.denoiser, recording.call)
        weights = self._token_weights(prompts, self.family.text_length(recording.call), spans)
        size = self.family.latent_size(self.denoiser, recording.call)
        maps_at: dict[int, Float[Tensor, "prompts 2 channels side side"]] = {}

        def observe(level: int, latents: Tensor, time: Tensor) -> Tensor:
            with self._capture.capture(weights, *size, spans=spans) as maps:
                prediction = recording(latents, time).float()
                stacked = maps().stack(self.layout.side, self.layout.renormalise, self.layout.reduce)
                maps_at[level] = stacked.half().cpu()
            return prediction

        seeds = [prompt.seed for prompt in prompts]
        task = inversion.InversionTask(
            self.pipe, recording, clean, pixels.repeat_interleave(2, dim=0), self.times, seeds
        )
        quality = self.invert(task, observe, limit=self.config.quality, **self.config.inversion_settings)
        maps = torch.stack([maps_at[level] for level in range(len(self.levels))], dim=1)
        return self._content(batch, pairs, maps, quality)

    def _token_weights(
        self, prompts: Sequence[ContrastivePrompt], tokens: int, text_spans: Sequence[TextSpan] | None
    ) -> Float[Tensor, "prompts 2 tokens"]:
        columns = []
        for prompt in prompts:
            spans = [span for span in (prompt.relation.subject_span, prompt.relation.object_span) if span is not None]
            columns.append(self.family.token_indices(self.pipe, prompt.text, spans, self.config.arguments))
        return columns_to_weights(columns, tokens, text_spans)

    def _content(
        self,
        batch: Sequence[NumberedImage],
        pairs: Sequence[tuple[ContrastivePrompt, ContrastivePrompt]],
        maps: Float[Tensor, "prompts levels 2 channels side side"],
        quality: inversion.InversionQuality,
    ) -> ShardContent:
        """Keep both prompts of an image or neither. Rows are ordered by image, prompt (true, wrong) and level."""
        kept: list[int] = []
        rows: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        for position, ((number, image), pair) in enumerate(zip(batch, pairs, strict=True)):
            both = (2 * position, 2 * position + 1)
            values = [float(quality.value[row]) for row in both]
            if not all(bool(quality.good[row]) for row in both):
                dropped.append({"picture": image.id, "reason": quality.unit, "values": [f"{v:.4g}" for v in values]})
                continue
            kept += both
            for prompt, value in zip(pair, values, strict=True):
                rows += [_row(number, image, prompt, level, value) for level in range(len(self.levels))]
        tensors = {
            "maps": maps[kept].flatten(0, 1),
            "label": torch.tensor([self.classes.index(row["relation"]) for row in rows], dtype=torch.int64),
            "prompted": torch.tensor([self.classes.index(row["prompted"]) for row in rows], dtype=torch.int64),
            "level": torch.tensor([row["level"] for row in rows], dtype=torch.int64),
            "group": torch.tensor([row["group"] for row in rows], dtype=torch.int64),
        }
        return ShardContent(tensors, rows, dropped)


def _row(number: int, image: LabelledImage, prompt: ContrastivePrompt, level: int, quality: float) -> dict[str, Any]:
    return {
        "picture": image.id,
        "group": number,
        "subject": image.subject,
        "relation": image.predicate,
        "object": image.object,
        "prompt": prompt.text,
        "prompted": prompt.relation.predicate,
        "kind": prompt.kind,
        "level": level,
        "seed": prompt.seed,
        "quality": float(f"{quality:.4g}"),
    }
