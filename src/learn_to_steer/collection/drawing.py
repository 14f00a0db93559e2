"""Lets the model draw pictures, and keeps the attention maps of the very path on which it draws them.

The maps are read off the pipeline's own forwards, of its conditional rows. What came out is labelled by detectors. A
picture may also be read under a prompt with a wrong relation: at the latents of its path, one forward a noise level.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from learn_to_steer import storage
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.map_extractor import ShardContent
from learn_to_steer.collection.noise_levels import SamplingPath
from learn_to_steer.collection.picture_labels import Detections, PictureLabels, Verdict
from learn_to_steer.conditioning import record, silenced
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Family
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.maps import AttentionMaps, MapSpec, columns_to_weights
from learn_to_steer.sources import PlannedPicture, SkipLog

log = logging.getLogger(__name__)
NumberedPlan = tuple[int, PlannedPicture]
OBEYS = 0.4  # share of obeyed words above which pictures are also read under wrong words, unless the settings say
LACKS_ONE = "pair: one of its objects is missing, beyond half of 'is'"
_DRAWING: ContextVar[object | None] = ContextVar("learn_to_steer_drawing", default=None)  # the call that is read


@dataclass
class _Path:
    """What is kept of one pipeline call, by noise level.

    Attributes:
        maps: Of the objects of all pictures.
        latents: As the denoiser was fed them.
        times: As the denoiser was fed them.
    """

    maps: dict[int, Float[Tensor, "pictures objects channels side side"]] = field(default_factory=dict)
    latents: dict[int, Float[Tensor, "pictures *latents"]] = field(default_factory=dict)
    times: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class _Pair:
    """Two objects of a picture that may become rows.

    Attributes:
        indices: Of the objects in the prompt.
        prompted: What the prompt says of them.
        verdict: What the detectors see of them.
        maps: Their maps by prompt: of the one it was drawn from, and perhaps of a wrong one.
    """

    indices: tuple[int, int]
    prompted: str
    verdict: Verdict
    maps: Float[Tensor, "levels 2 channels side side"]


@dataclass
class _Drawn:
    """A picture, what is seen in it, and the pairs of its objects that can be used.

    Attributes:
        number: Its number in the collection.
        plan: What was to be drawn.
        found: The detections of every detector.
        verdicts: What is seen of every pair of the plan.
        pairs: The pairs that become rows.
        latents: Its latents on the path, by noise level.
        wrong: The same picture under a wrong prompt; None if it was not read so.
    """

    number: int
    plan: PlannedPicture
    found: Sequence[Detections]
    verdicts: list[Verdict]
    pairs: list[_Pair]
    latents: Float[Tensor, "levels *latents"] | None
    wrong: tuple[PlannedPicture, list[_Pair]] | None = None


class DrawnMaps:
    """Draws pictures with a pipeline, and keeps the attention maps of pairs of their objects.

    Args:
        pipe: The diffusers pipeline.
        family: Its family.
        config: What to collect.
        path: The denoising steps whose maps are kept, and the arguments of the pipeline calls.
        classes: Names of the relations, in the order of their labels.
        labels: Labels the pictures.
        folder: Where pictures are written to.

    Attributes:
        contrast: Whether pictures are also read under wrong words. None: the next shard decides, by how often the
            model obeys.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        config: CollectConfig,
        path: SamplingPath,
        classes: Sequence[str],
        labels: PictureLabels,
        folder: Path,
    ) -> None:
        self.pipe, self.family, self.config, self.path = pipe, family, config, path
        self.classes, self.labels, self.folder = tuple(classes), labels, folder
        self.contrast = config.contrast
        self.denoiser: nn.Module = getattr(pipe, family.denoiser)
        self.layout = replace(
            family.layout(self.denoiser, config.map_side), reduce=config.reduce, softmax=config.softmax
        )
        self._capture = AttentionCapture(family.attention_layers(self.denoiser), spec=MapSpec(self.layout.softmax))
        self._batch = config.batch
        self._times: list[Tensor] = []  # of the noise levels, as the denoiser was last fed them

    def shard(self, plans: Sequence[NumberedPlan], count: Callable[[int], None]) -> ShardContent:
        """Draw the pictures of one shard, and write them to the folder.

        Args:
            plans: The pictures with their numbers in the collection.
            count: Called after every batch with its number of pictures.

        Returns:
            The tensors of the shard, its rows, its pictures without rows, what is seen in all, and the yield.
        """
        drawn: list[_Drawn] = []
        for batch in self._batches(plans):
            drawn += self._draw(batch)
            count(len(batch))
        skipped = _limit_missing(drawn)
        words, obeyed = _obedience(drawn)
        if self.contrast is None:
            self.contrast = words > 0 and obeyed / words > OBEYS
            log.info(
                "the model obeys %d of %d relation words: pictures are %s under wrong words",
                *(obeyed, words, "also read" if self.contrast else "not read"),
            )
        if self.contrast:
            for some in self._batches([one for one in drawn if one.pairs]):
                self._read_wrong(some)
        content = self._content(drawn)
        yielded = {
            "pictures": len(drawn),
            "words": words,
            "obeyed": obeyed,
            "contrast": self.contrast,
            "labels": dict(Counter(str(pair.verdict.label) for one in drawn for pair in one.pairs)),
            "skipped": skipped.as_dict(),
        }
        return content._replace(pictures=[self._entry(one) for one in drawn], drawn=yielded)

    def estimate(self, plans: Sequence[NumberedPlan]) -> tuple[int, float]:
        """Estimate, from one picture, the disk space and the time that pictures take.

        Args:
            plans: The pictures with their numbers in the collection.

        Returns:
            The size of the maps and pictures in bytes if every pair can be used, and an upper bound of the time in
            seconds.
        """
        began = time.monotonic()
        self._draw(plans[:1])
        seconds = time.monotonic() - began
        prompts = 1 if self.contrast is False else 2
        forwards = 1 if prompts == 1 else 1 + len(self.path.levels) / len(self.path.schedule)
        row = 2 * self.layout.channels * self.layout.side**2 * 2
        rows = prompts * len(self.path.levels) * sum(len(plan.pairs) for _, plan in plans)
        return rows * row + len(plans) * 3 * self.config.side**2, seconds * forwards * len(plans)

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """The items in batches. ``_batch`` may become smaller meanwhile."""
        start = 0
        while start < len(items):
            size = self._batch
            yield items[start : start + size]
            start += size

    @torch.no_grad()
    def _draw(self, plans: Sequence[NumberedPlan]) -> list[_Drawn]:
        """Draw pictures in one pipeline call, or in several if memory is too small for one."""
        if len(plans) > self._batch:
            return [one for batch in self._batches(plans) for one in self._draw(batch)]
        texts, spans = zip(*(plan.prompt() for _, plan in plans), strict=True)
        columns = [self._columns(text, its) for text, its in zip(texts, spans, strict=True)]
        seeds = [_number(self.config.seed, plan.id, "noise") for _, plan in plans]
        arguments = self.path.arguments | {
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "pil",
        }
        try:
            with self._reading(columns) as path, silenced(self.pipe):
                images = self.pipe(list(texts), **arguments).images
        except torch.OutOfMemoryError as error:
            self._halve(len(plans), error)
            return self._draw(plans)
        if len(path.maps) < len(self.path.levels):
            raise UnsupportedError(
                f"the pipeline called its denoiser at {len(path.maps)} of the {len(self.path.levels)} steps to read, "
                "so use the family's usual scheduler, and a text-to-image pipeline"
            )
        found = self.labels.detect(images, [plan.objects for _, plan in plans])
        levels = range(len(self.path.levels))
        maps = torch.stack([path.maps[level] for level in levels], dim=1)
        latents = torch.stack([path.latents[level] for level in levels], dim=1)
        self._times = [path.times[level] for level in levels]
        drawn = []
        for n, ((number, plan), image) in enumerate(zip(plans, images, strict=True)):
            self._save(plan, image)
            verdicts = [
                self.labels.verdict(found[n], plan.objects[first], plan.objects[second])
                for first, second, _ in plan.pairs
            ]
            pairs = [
                _Pair((first, second), prompted, verdict, maps[n][:, [first, second]].clone())
                for (first, second, prompted), verdict in zip(plan.pairs, verdicts, strict=True)
                if verdict.label is not None
            ]
            kept = None if self.contrast is False else latents[n].clone()
            drawn.append(_Drawn(number, plan, found[n], verdicts, pairs, kept))
        return drawn

    @torch.no_grad()
    def _read_wrong(self, drawn: Sequence[_Drawn]) -> None:
        """Read pictures at the latents of their paths, under prompts that say something wrong of their pairs."""
        plans = [self._wrong_plan(one) for one in drawn]
        texts, spans = zip(*(plan.prompt() for plan in plans), strict=True)
        columns = [self._columns(text, its) for text, its in zip(texts, spans, strict=True)]
        side, arguments = self.config.side, self.path.arguments
        recording = record(self.pipe, self.family, texts, side, side, arguments)
        weights = columns_to_weights(columns, self.family.text_length(recording.call))
        size, device = self.family.latent_size(recording.call), recording.call.latents.device
        latents = torch.stack([one.latents for one in drawn if one.latents is not None])
        kept = []
        for level, moment in enumerate(self._times):
            with self._capture.capture(weights, *size) as maps:
                recording(latents[:, level].to(device), moment.to(device))
                kept.append(self._stacked(maps()))
        maps_of = torch.stack(kept, dim=1)
        for n, (one, plan) in enumerate(zip(drawn, plans, strict=True)):
            said = {(first, second): word for first, second, word in plan.pairs}
            joined = [pair for pair in one.pairs if pair.indices[1] - pair.indices[0] == 1]
            pairs = [
                _Pair(pair.indices, said[pair.indices], pair.verdict, maps_of[n][:, list(pair.indices)].clone())
                for pair in joined
            ]
            one.wrong, one.latents = (plan, pairs), None

    def _wrong_plan(self, one: _Drawn) -> PlannedPicture:
        """The plan of a picture with other words for its joined pairs, drawn evenly from those that are wrong."""
        rng = random.Random(_number(self.config.seed, one.plan.id, "wrong"))
        labels = {pair.indices: pair.verdict.label for pair in one.pairs}
        joins = tuple(
            rng.choice([name for name in self.classes if name != labels[n, n + 1]]) if (n, n + 1) in labels else join
            for n, join in enumerate(one.plan.joins)
        )
        return replace(one.plan, joins=joins)

    @contextmanager
    def _reading(self, columns: Sequence[Sequence[Sequence[int]]]) -> Iterator[_Path]:
        """Keep maps and latents of the conditional rows of a pipeline call, at the steps of the path."""
        path, pictures = _Path(), len(columns)
        around = ExitStack()
        reading: list[tuple[int, Callable[[], AttentionMaps]]] = []

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if _DRAWING.get() is not path:
                return
            call = self.family.read(self.denoiser, args, kwargs)
            level = self.path.level_at(call.time)
            if level is None or level in path.maps:
                return
            batch = call.latents.shape[0]
            if batch not in (pictures, 2 * pictures):
                raise UnsupportedError(
                    f"the pipeline calls its denoiser with {batch} rows for {pictures} prompts; maps are collected "
                    "from the conditional rows (turn off perturbed-attention guidance)"
                )
            path.latents[level] = call.latents[batch - pictures :].cpu()
            path.times[level] = call.time.flatten()[-1].cpu()
            rows = None if batch == pictures else torch.arange(pictures, batch)
            weights = columns_to_weights(columns, self.family.text_length(call))
            maps = around.enter_context(self._capture.capture(weights, *self.family.latent_size(call), rows))
            reading.append((level, maps))

        def leave(_module: nn.Module, _arguments: Any, output: Any) -> None:
            if _DRAWING.get() is path and reading:
                level, maps = reading.pop()
                if output is not None:  # after an error, which is not to be replaced
                    path.maps[level] = self._stacked(maps())
                around.close()

        outer = _DRAWING.get()
        _DRAWING.set(path)
        handles = [
            self.denoiser.register_forward_pre_hook(enter, with_kwargs=True),
            self.denoiser.register_forward_hook(leave, always_call=True),
        ]
        try:
            yield path
        finally:
            _DRAWING.set(outer)
            for handle in handles:
                handle.remove()
            around.close()

    def _stacked(self, maps: AttentionMaps) -> Tensor:
        return maps.stack(self.layout.side, self.layout.renormalise, self.layout.reduce).half().cpu()

    def _columns(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
        return self.family.token_indices(self.pipe, text, spans, self.path.arguments)

    def _halve(self, pictures: int, error: Exception) -> None:
        """Draw fewer pictures at a time from now on. Raises UnsupportedError if one is too many."""
        if pictures == 1:
            raise UnsupportedError(
                "there is too little memory to draw one picture; reduce that of the weights (--offload model, "
                "--quantize 4bit), or draw smaller pictures (--side)"
            ) from error
        self._batch = max(pictures // 2, 1)
        torch.cuda.empty_cache()
        log.warning("too little memory for %d pictures at a time; going on with %d", pictures, self._batch)

    def _save(self, plan: PlannedPicture, image: Image) -> None:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        storage.write_atomic(self.folder / f"{plan.id}.png", buffer.getvalue())

    def _content(self, drawn: Sequence[_Drawn]) -> ShardContent:
        """Rows are ordered by picture, prompt (the drawn one, the wrong one), pair and level."""
        rows: list[dict[str, Any]] = []
        maps: list[Tensor] = []
        dropped = []
        for one in drawn:
            if not one.pairs:
                reasons = [verdict.reason or LACKS_ONE for verdict in one.verdicts]
                dropped.append({"picture": one.plan.id, "reason": max(sorted(set(reasons)), key=reasons.count)})
            versions = [("drawn", one.plan, one.pairs), *([("wrong", *one.wrong)] if one.wrong else [])]
            for kind, plan, pairs in versions:
                for pair in pairs:
                    maps.append(pair.maps)
                    rows += self._rows(one.number, plan, kind, pair)
        channels, side = self.layout.channels, self.layout.side
        columns = {"label": "relation", "prompted": "prompted"}
        tensors = {
            "maps": torch.cat(maps) if maps else torch.zeros(0, 2, channels, side, side, dtype=torch.float16),
            **{
                name: torch.tensor([self.classes.index(row[key]) for row in rows], dtype=torch.int64)
                for name, key in columns.items()
            },
            **{name: torch.tensor([row[name] for row in rows], dtype=torch.int64) for name in ("level", "group")},
        }
        return ShardContent(tensors, rows, dropped)

    def _rows(self, number: int, plan: PlannedPicture, kind: str, pair: _Pair) -> list[dict[str, Any]]:
        subject, reference = (plan.objects[index] for index in pair.indices)
        shared = {
            "picture": plan.id,
            "group": number,
            "subject": subject,
            "relation": pair.verdict.label,
            "object": reference,
            "prompt": plan.prompt()[0],
            "prompted": pair.prompted,
            "kind": kind,
        }
        seed = _number(self.config.seed, plan.id, "noise")
        return [shared | {"level": level, "seed": seed, "quality": 0.0} for level in range(len(self.path.levels))]

    def _entry(self, one: _Drawn) -> dict[str, Any]:
        """What is written about a picture, so that it can be shown, and labelled anew."""
        plan = one.plan
        return {
            "picture": plan.id,
            "group": one.number,
            "file": f"{plan.id}.png",
            "prompt": plan.prompt()[0],
            "objects": list(plan.objects),
            "detections": [[_box_entry(each) for each in detections] for detections in one.found],
            "pairs": [
                {
                    "subject": plan.objects[first],
                    "prompted": prompted,
                    "object": plan.objects[second],
                    "relation": verdict.label,
                    "lacks_one": verdict.lacks_one,
                    "used": any(pair.indices == (first, second) for pair in one.pairs),
                    "reason": verdict.reason,
                }
                for (first, second, prompted), verdict in zip(plan.pairs, one.verdicts, strict=True)
            ],
        }


def _limit_missing(drawn: Sequence[_Drawn]) -> SkipLog:
    """Drop pairs that lack an object, down to half of those of the label "is". Returns what was left out, and why."""
    skipped = SkipLog()
    both = sum(pair.verdict.label == NEUTRAL and not pair.verdict.lacks_one for one in drawn for pair in one.pairs)
    for one in drawn:
        for (first, second, _), verdict in zip(one.plan.pairs, one.verdicts, strict=True):
            if verdict.label is None:
                skipped.add(verdict.reason, f"{one.plan.id}: {one.plan.objects[first]}, {one.plan.objects[second]}")
        kept = []
        for pair in one.pairs:
            if pair.verdict.lacks_one and both == 0:
                skipped.add(LACKS_ONE, f"{one.plan.id}: {', '.join(one.plan.objects[i] for i in pair.indices)}")
                continue
            both -= pair.verdict.lacks_one
            kept.append(pair)
        one.pairs = kept
    return skipped


def _obedience(drawn: Sequence[_Drawn]) -> tuple[int, int]:
    """How many relation words name a pair that is seen, and how many of these are true of it."""
    seen = [
        (prompted, verdict.label)
        for one in drawn
        for (_, _, prompted), verdict in zip(one.plan.pairs, one.verdicts, strict=True)
        if prompted != NEUTRAL and verdict.label is not None and not verdict.lacks_one
    ]
    return len(seen), sum(prompted == label for prompted, label in seen)


def _box_entry(one: Any) -> dict[str, Any]:
    return {"name": one.name, "score": round(one.score, 4), "box": [round(float(edge), 2) for edge in one.box]}


def _number(*parts: object) -> int:
    """A number below 2**48 that depends on ``parts`` alone, in every process."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:6])
