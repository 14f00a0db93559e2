"""Collect attention maps of labelled images, each under a true and a wrong prompt; goes on after a kill."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, families, registry, storage
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.map_extractor import MapExtractor, NumberedImage
from learn_to_steer.collection.noise_levels import default_levels, kept_times
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import Manifest, is_done, remove_leftovers, totals, write_shard
from learn_to_steer.errors import DataError, InversionError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sources import SPLITS, LabelledImage, NamePairs, SkipLog, Source, SourceRequest
from learn_to_steer.versions import installed_versions

log = logging.getLogger(__name__)
SHARD = 32  # images; with two prompts and eight levels 512 rows


def collect(pipe: Any, out: str | Path, config: CollectConfig, *, progress: bool = True) -> Manifest:
    """Collect maps from a pipeline into a folder; finished shards of an earlier run are kept.

    Every image is noised and shown to the denoiser under both prompts (conditional, no guidance), and labelled with
    the true relation. If the inversion of one prompt fails its quality check, the image is dropped.

    Args:
        pipe: A diffusers pipeline of a known family.
        out: The folder: new, empty, or begun with the same settings.
        config: What to collect.
        progress: Whether to show a progress bar.

    Returns:
        The manifest of the finished collection.

    Raises:
        DataError: ``out`` holds another collection, or the source has no usable image.
        InversionError: No image passes the quality check.
        UnknownNameError: Source or inversion do not exist.
        UnsupportedError: The pipeline cannot be collected from.
    """
    out = Path(out)
    storage.check_folder(out)
    if config.limit < 1 or config.batch < 1:
        raise DataError(f"limit and batch must be at least 1, got {config.limit} and {config.batch}")
    family = families.find(pipe)
    if config.side % family.pixel_multiple(pipe):
        raise DataError(f"the side must be a multiple of {family.pixel_multiple(pipe)} pixels, not {config.side}")
    source: Source = registry.load("sources", config.source)
    times, levels = kept_times(pipe, family, config.levels or default_levels(pipe, family))
    classes = (*BASIC, *(DIAGONAL if config.diagonals else ()), NEUTRAL)
    images, skipped = _labelled_images(source, config)
    plan = _plan(images)
    extractor = MapExtractor(pipe, family, config, times, levels, classes)
    manifest = Manifest(
        settings=config.settings(),
        weights=extractor.weights_digest(),
        layout=extractor.layout.as_dict(),
        fingerprint=extractor.layout.fingerprint,
        classes=list(classes),
        levels=list(levels),
        source_note=source.NOTE,
        shards=list(plan),
        versions=installed_versions("learn-to-steer", "torch", "diffusers"),
        skipped=skipped.as_dict(),
        chosen=_digest(images) if config.data is not None else "",
    )
    _start_or_resume(out, manifest)
    todo = {shard: indices for shard, indices in plan.items() if not is_done(out, shard)}
    total = sum(len(indices) for indices in todo.values())
    if todo:
        _announce(extractor, [(n, images[n]) for indices in todo.values() for n in indices], out)
    with progress_bar("collecting", total, "pictures") if progress and todo else nullcontext(lambda _: None) as count:
        for shard, indices in todo.items():
            write_shard(out, shard, *extractor.shard([(n, images[n]) for n in indices], count))
    counts = totals(out, list(plan))
    if not any(counts["rows"].values()):
        raise InversionError(
            f"none of the {config.limit} pictures passed the inversion's quality check ({counts['dropped']}); "
            "does the model make such pictures at this side, or is the limit too strict?"
        )
    done = replace(manifest, counts=counts, complete=True)
    done.write(out)
    return done


def benchmark_pairs() -> NamePairs:
    """Return every two objects that a prompt names together, of the benchmarks that can be held out."""
    prompts = (prompt for name in benchmarks.held_out_names() for prompt in benchmarks.prompts(name))
    return frozenset(frozenset(pair) for prompt in prompts for pair in combinations(prompt.objects, 2))


def _labelled_images(source: Source, config: CollectConfig) -> tuple[list[LabelledImage], SkipLog]:
    """The images to collect from, and what the source left out; DataError when there are none."""
    request = SourceRequest(
        config.limit,
        config.seed,
        config.side,
        diagonals=config.diagonals,
        data=config.data,
        exclude=benchmark_pairs() if config.exclude_benchmarks else frozenset(),
    )
    labelled = source.images(request)
    images, skipped = list(labelled), labelled.skipped
    if not images:
        most = sorted(skipped.counts.items(), key=lambda item: (not item[0].startswith("file:"), -item[1]))[:4]
        raise DataError(
            f"none of the pictures in {config.data} can be learned from "
            f"({'; '.join(f'{reason}: {count}' for reason, count in most) or 'it lists none'})"
        )
    for reason in skipped.counts:
        if reason.startswith("file:"):
            log.warning("%s (%s)", reason, "; ".join(skipped.examples[reason]))
    return images, skipped


def _plan(images: Sequence[LabelledImage]) -> dict[str, list[int]]:
    """Shard id -> indices of its images; every split has its own shards."""
    plan = {}
    for split in SPLITS:
        members = [index for index, image in enumerate(images) if image.split == split]
        for start in range(0, len(members), SHARD):
            plan[f"{split}-{start // SHARD:04d}"] = members[start : start + SHARD]
    return plan


def _digest(images: Sequence[LabelledImage]) -> str:
    """A hash of which images these are, and in which order."""
    listed = "\n".join(f"{i.id}|{i.subject}|{i.predicate}|{i.object}|{i.split}" for i in images)
    return hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _start_or_resume(out: Path, manifest: Manifest) -> None:
    """Begin a folder, or go on with one that was begun with the same settings."""
    if (out / "manifest.json").exists():
        Manifest.read(out).require_same(manifest, out)
        remove_leftovers(out)
    elif out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no collection; name an empty or a new folder")
    manifest.write(out)


def _announce(extractor: MapExtractor, images: Sequence[NumberedImage], out: Path) -> None:
    """Log the disk space and time that are needed; DataError when the disk has less than that."""
    size, seconds = extractor.estimate(images)
    log.info("%d pictures: about %s of maps, at most %.0f min", len(images), _readable(size), seconds / 60)
    free = shutil.disk_usage(out).free
    if size > free:
        raise DataError(
            f"the maps of {len(images)} pictures take about {_readable(size)}, but {out} has {_readable(free)} free; "
            "take fewer (--limit) or keep means over heads (--reduce layer-mean, or mean)"
        )


def _readable(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
