"""The forwards of a collection: pictures in, the tensors and rows of one shard out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer import inversion
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.dataset.config import CollectConfig
from learn_to_steer.dataset.twins import Twin, twins
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Family
from learn_to_steer.maps import MapSpec, columns_to_weights
from learn_to_steer.sources import LabelledPicture

Numbered = tuple[int, LabelledPicture]
Shard = tuple[dict[str, Tensor], list[dict[str, Any]], list[dict[str, Any]]]


class Collector:
    """Runs a pipeline's denoiser on noised pictures and keeps the maps of subject and object."""

    def __init__(
        self,
        pipe: Any,
        family: Family,
        config: CollectConfig,
        times: Tensor,
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
        self._capture = AttentionCapture(family.points(self.denoiser), spec=MapSpec(self.layout.softmax))

    def weights_digest(self) -> str:
        """Twelve hex digits of the denoiser's weights (a few of every tensor): which training of it this is."""
        digest = hashlib.sha256()
        for name, tensor in self.denoiser.state_dict().items():
            some = tensor.detach().flatten()[:64].float().cpu()
            digest.update(name.encode() + some.numpy().tobytes())
        return digest.hexdigest()[:12]

    def shard(self, pictures: Sequence[Numbered], count: Callable[[int], None]) -> Shard:
        """Tensors, rows and dropped pictures of one shard; ``count`` is told of every batch that is done."""
        parts: list[dict[str, Tensor]] = []
        rows: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        for start in range(0, len(pictures), self.config.batch):
            batch = pictures[start : start + self.config.batch]
            tensors, kept, lost = self._batch(batch)
            parts.append(tensors)
            rows += kept
            dropped += lost
            count(len(batch))
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}, rows, dropped

    def expected(self, pictures: Sequence[Numbered]) -> tuple[int, float]:
        """Bytes on the disk and seconds that ``pictures`` will take at most, from a trial of the first one."""
        began = time.monotonic()
        tensors, _, _ = self._batch(pictures[:1])
        seconds = time.monotonic() - began
        rows = 2 * len(self.levels)
        row = 2 * self.layout.channels * self.layout.side**2 * tensors["maps"].element_size()
        return rows * row * len(pictures), seconds * len(pictures)

    @torch.no_grad()
    def _batch(self, batch: Sequence[Numbered]) -> Shard:
        pairs = [twins(picture, self.classes, self.config.seed) for _, picture in batch]
        flat = [twin for pair in pairs for twin in pair]
        pixels = torch.stack([picture.pixels() for _, picture in batch])
        clean = self.family.encode(self.pipe, pixels).repeat_interleave(2, dim=0)
        prompts = [t.prompt for t in flat]
        recording = record(self.pipe, self.family, prompts, pixels.shape[-2], pixels.shape[-1], self.config.arguments)
        if recording.batch != len(flat):
            raise UnsupportedError(
                f"the pipeline calls its denoiser with {recording.batch} rows for {len(flat)} prompts; "
                "only the conditional batch alone can be collected (turn off perturbed-attention guidance)"
            )
        weights = self._weights(flat, self.family.text_length(recording.call))
        size = self.family.latent_size(recording.call)
        seen: dict[int, Tensor] = {}

        def observe(level: int, latents: Tensor, time: Tensor) -> Tensor:
            with self._capture.capture(weights, *size) as maps:
                prediction = recording(latents, time).float()
                seen[level] = maps().stack(self.layout.side, self.layout.renormalise, self.layout.reduce).half().cpu()
            return prediction

        task = inversion.Task(
            self.pipe, recording, clean, pixels.repeat_interleave(2, dim=0), self.times, [t.seed for t in flat]
        )
        quality = self.invert(task, observe, limit=self.config.quality, **self.config.inversion_settings)
        maps = torch.stack([seen[level] for level in range(len(self.levels))], dim=1)  # (twins, levels, 2, C, S, S)
        return self._sorted(batch, pairs, maps, quality)

    def _weights(self, flat: Sequence[Twin], tokens: int) -> Tensor:
        columns = []
        for twin in flat:
            spans = [span for span in (twin.relation.subject_span, twin.relation.object_span) if span is not None]
            columns.append(self.family.columns(self.pipe, twin.prompt, spans, self.config.arguments))
        return columns_to_weights(columns, tokens)

    def _sorted(
        self,
        batch: Sequence[Numbered],
        pairs: Sequence[tuple[Twin, Twin]],
        maps: Tensor,
        quality: inversion.Quality,
    ) -> Shard:
        """Keep both prompts of a picture or neither; rows go picture by picture, true then wrong, level by level."""
        kept: list[int] = []
        rows: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        for place, ((number, picture), pair) in enumerate(zip(batch, pairs, strict=True)):
            both = (2 * place, 2 * place + 1)
            values = [float(quality.value[row]) for row in both]
            if not all(bool(quality.good[row]) for row in both):
                dropped.append({"picture": picture.id, "reason": quality.unit, "values": [f"{v:.4g}" for v in values]})
                continue
            kept += both
            for twin, value in zip(pair, values, strict=True):
                rows += [self._row(number, picture, twin, level, value) for level in range(len(self.levels))]
        tensors = {
            "maps": maps[kept].flatten(0, 1),
            "label": torch.tensor([self.classes.index(row["relation"]) for row in rows], dtype=torch.int64),
            "prompted": torch.tensor([self.classes.index(row["prompted"]) for row in rows], dtype=torch.int64),
            "level": torch.tensor([row["level"] for row in rows], dtype=torch.int64),
            "group": torch.tensor([row["group"] for row in rows], dtype=torch.int64),
        }
        return tensors, rows, dropped

    def _row(self, number: int, picture: LabelledPicture, twin: Twin, level: int, quality: float) -> dict[str, Any]:
        return {
            "picture": picture.id,
            "group": number,
            "subject": picture.subject,
            "relation": picture.predicate,
            "object": picture.object,
            "prompt": twin.prompt,
            "prompted": twin.relation.predicate,
            "kind": twin.kind,
            "level": level,
            "seed": twin.seed,
            "quality": float(f"{quality:.4g}"),
        }
