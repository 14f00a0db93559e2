"""Lets the model draw pictures, and keeps the attention maps of the very path on which it draws them.

What came out is labelled by detectors. A picture may also be read under a prompt with wrong relations: at the latents
of its path, one forward for each noise level.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from learn_to_steer import storage
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.drawn_pictures import (
    DrawnPicture,
    Pair,
    label_counts,
    limit_missing,
    number_of,
    obedience,
    shard_content,
)
from learn_to_steer.collection.map_extractor import ShardContent
from learn_to_steer.collection.noise_levels import SamplingPath
from learn_to_steer.collection.path_reader import PathReader
from learn_to_steer.collection.picture_labels import PictureLabels
from learn_to_steer.conditioning import record, silenced
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Family
from learn_to_steer.image_files import png_bytes
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.sources import PlannedPicture

log = logging.getLogger(__name__)
NumberedPlan = tuple[int, PlannedPicture]
OBEYS = 0.4  # share of obeyed words above which pictures are also read under wrong words, unless the settings say


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
        self._reader = PathReader(family, self.denoiser, self.layout, path)
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
        drawn: list[DrawnPicture] = []
        for batch in self._batches(plans):
            drawn += self._draw(batch)
            count(len(batch))
        skipped = limit_missing(drawn)
        words, obeyed = obedience(drawn)
        if self.contrast is None:
            self.contrast = words > 0 and obeyed / words > OBEYS
            read = "also read" if self.contrast else "not read"
            log.info("the model obeys %d of %d relation words: pictures are %s under wrong words", obeyed, words, read)
        if self.contrast:
            for some in self._batches([picture for picture in drawn if picture.pairs]):
                self._read_wrong(some)
        came = {
            "pictures": len(drawn),
            "words": words,
            "obeyed": obeyed,
            "contrast": self.contrast,
            "labels": label_counts(drawn),
            "skipped": skipped.as_dict(),
        }
        return shard_content(drawn, self.classes, self.layout, self.config.seed)._replace(drawn=came)

    @torch.no_grad()
    def estimate(self, plans: Sequence[NumberedPlan]) -> tuple[int, float]:
        """Estimate the disk space and the time that pictures take. None is drawn.

        Args:
            plans: The pictures with their numbers in the collection.

        Returns:
            The size of maps and pictures in bytes if every pair can be used, and the time in seconds: that of the
            forwards, of one picture at a time, and of decoding and looking for objects.
        """
        plan, side = plans[0][1], self.config.side
        recording = record(self.pipe, self.family, [plan.prompt()[0]], side, side, self._conditioning())
        latents, moment = recording.call.latents, recording.call.time
        recording(latents, moment)  # the first forward takes longer
        began = time.monotonic()
        recording(latents, moment).float().cpu()
        forward = time.monotonic() - began
        pixels = self.family.decode(self.pipe, recording.call)[0].float().clamp(0, 1) * 255
        image = Image.fromarray(pixels.byte().permute(1, 2, 0).cpu().numpy())
        self.labels.detect([image], [plan.objects])
        looked = time.monotonic() - began - forward
        self.pipe.maybe_free_model_hooks()
        guided = 2 if self.family.record_arguments(self.pipe) and self.path.arguments["guidance_scale"] > 1 else 1
        prompts = 1 if self.contrast is False else 2
        forwards = guided * len(self.path.schedule) + (prompts - 1) * len(self.path.levels)
        rows = prompts * len(self.path.levels) * sum(len(one.pairs) for _, one in plans)
        return rows * self.layout.pair_bytes + len(plans) * 3 * side**2, (forwards * forward + looked) * len(plans)

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """The items in batches, which may become smaller meanwhile."""
        start = 0
        while start < len(items):
            size = self._batch
            yield items[start : start + size]
            start += size

    @torch.no_grad()
    def _draw(self, plans: Sequence[NumberedPlan]) -> list[DrawnPicture]:
        """Draw pictures in one pipeline call, or in several if memory is too small for one."""
        if len(plans) > self._batch:
            return [picture for batch in self._batches(plans) for picture in self._draw(batch)]
        texts, spans = zip(*(plan.prompt() for _, plan in plans), strict=True)
        columns = [self._columns(text, its) for text, its in zip(texts, spans, strict=True)]
        seeds = [number_of(self.config.seed, plan.id, "noise") for _, plan in plans]
        # Drawn on the CPU: the same numbers on every device.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        arguments = {**self.path.arguments, "generator": generators, "output_type": "pil"}
        try:
            with silenced(self.pipe), self._reader.reading(columns) as kept:
                images = self.pipe(list(texts), **arguments).images
        except torch.OutOfMemoryError as error:
            self._halve(len(plans), error)
            return self._draw(plans)
        found = self.labels.detect(images, [plan.objects for _, plan in plans])
        maps, latents = kept.all_maps(), kept.all_latents()
        self._times = [kept.times[level] for level in sorted(kept.times)]
        drawn = []
        for n, ((number, plan), image) in enumerate(zip(plans, images, strict=True)):
            self._save(plan, image)
            verdicts = [
                self.labels.verdict(found[n], plan.objects[first], plan.objects[second])
                for first, second, _ in plan.pairs
            ]
            pairs = [
                Pair((first, second), prompted, verdict, maps[n][:, [first, second]].clone())
                for (first, second, prompted), verdict in zip(plan.pairs, verdicts, strict=True)
                if verdict.label is not None
            ]
            needed = None if self.contrast is False else latents[n].clone()
            drawn.append(DrawnPicture(number, plan, found[n], verdicts, pairs, needed))
        return drawn

    @torch.no_grad()
    def _read_wrong(self, drawn: Sequence[DrawnPicture]) -> None:
        """Read pictures at the latents of their paths, under prompts that say something wrong of their pairs."""
        plans = [picture.with_wrong_words(self.classes, self.config.seed) for picture in drawn]
        texts, spans = zip(*(plan.prompt() for plan in plans), strict=True)
        columns = [self._columns(text, its) for text, its in zip(texts, spans, strict=True)]
        side = self.config.side
        recording = record(self.pipe, self.family, texts, side, side, self._conditioning())
        device = recording.call.latents.device
        places = self.family.spans(self.denoiser, recording.call)
        weights = columns_to_weights(columns, self.family.text_length(recording.call), places)
        size = self.family.latent_size(self.denoiser, recording.call)
        latents = torch.stack([picture.latents for picture in drawn if picture.latents is not None])
        of_levels = []
        for level, moment in enumerate(self._times):
            with self._reader.capturing(weights, size, spans=places) as maps:
                recording(latents[:, level].to(device), moment.to(device))
                of_levels.append(maps())
        self.pipe.maybe_free_model_hooks()
        for picture, plan, its_maps in zip(drawn, plans, torch.stack(of_levels, dim=1), strict=True):
            picture.add_wrong(plan, its_maps)

    def _conditioning(self) -> dict[str, Any]:
        """The arguments of a pipeline call that ``record`` does not set itself."""
        own = ("height", "width", "num_inference_steps")
        return {name: value for name, value in self.path.arguments.items() if name not in own}

    def _columns(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
        return self.family.token_indices(self.pipe, text, spans, self.path.arguments)

    def _halve(self, pictures: int, error: Exception) -> None:
        """Draw fewer pictures at a time from now on. Raises UnsupportedError if one is too many."""
        if pictures == 1:
            raise UnsupportedError(
                "there is too little memory to draw one picture; reduce that of the weights (--offload model, "
                "--quantize 4bit), or draw smaller pictures (--side)"
            ) from error
        self._batch = pictures // 2
        torch.cuda.empty_cache()
        log.warning("too little memory for %d pictures at a time; going on with %d", pictures, self._batch)

    def _save(self, plan: PlannedPicture, image: Image.Image) -> None:
        storage.write_atomic(self.folder / f"{plan.id}.png", png_bytes(image))
