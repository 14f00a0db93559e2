"""Collect attention maps of labelled images, each under a true and a wrong prompt; a killed run can be resumed."""

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

from learn_to_steer import benchmarks, digests, families, registry, storage
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.map_extractor import MapExtractor, NumberedImage
from learn_to_steer.collection.noise_levels import default_levels, kept_times
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import Manifest, is_done, totals, write_shard
from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError, InversionError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sources import SPLITS, LabelledImage, NamePairs, SkipLog, Source, SourceRequest
from learn_to_steer.versions import installed_versions

log = logging.getLogger(__name__)
SHARD = 32  # images per shard: 512 rows with two prompts and eight noise levels


def collect(pipe: Any, out: str | Path, config: CollectConfig, *, progress: bool = True) -> Manifest:
    """Collect maps from a pipeline into a folder; finished shards of an earlier run are kept.

    Every image is noised and passed to the denoiser once with a true prompt and once with a wrong one, without
    guidance. Both are labelled with the true relation. If the inversion under either prompt fails its quality check,
    the image is dropped.

    Args:
        pipe: A diffusers pipeline of a known family.
        out: The folder of the collection: new, empty, or from an earlier run with the same settings.
        config: What to collect.
        progress: Whether to show a progress bar.

    Returns:
        The manifest of the finished collection.

    Raises:
        DataError: ``out`` holds another collection, or the source has no usable image.
        InversionError: No image passes the quality check.
        UnknownNameError: There is no such source or inversion.
        UnsupportedError: The family of the pipeline is not known, or the pipeline calls its denoiser in another way.
    """
    out = Path(out)
    storage.check_folder(out)
    family = families.find(pipe)
    if config.side % family.pixel_multiple(pipe):
        raise DataError(f"the side must be a multiple of {family.pixel_multiple(pipe)} pixels, not {config.side}")
    source: Source = registry.load("sources", config.source)
    # Some schedulers shift their noise levels by the size of the image, and know it from a call of the pipeline.
    record(pipe, family, ["a"], config.side, config.side, config.arguments)
    times, levels = kept_times(pipe, family, config.levels or default_levels(pipe, family))
    classes = (*BASIC, *(DIAGONAL if config.diagonals else ()), NEUTRAL)
    images, skipped = _labelled_images(source, config)
    plan = _plan(images)
    extractor = MapExtractor(pipe, family, config, times, levels, classes)
    manifest = Manifest(
        settings=config.settings(),
        weights=digests.sampled_weights(extractor.denoiser),
        layout=extractor.layout.as_dict(),
        fingerprint=extractor.layout.fingerprint,
        classes=list(classes),
        levels=list(levels),
        source_note=source.NOTE,
        shards=list(plan),
        versions=installed_versions("learn-to-steer", "torch", "diffusers"),
        skipped=skipped.as_dict(),
        chosen=_images_digest(images) if config.data is not None else "",
    )
    _start_or_resume(out, manifest)
    todo = {shard: indices for shard, indices in plan.items() if not is_done(out, shard)}
    total = sum(len(indices) for indices in todo.values())
    if todo:
        _announce(extractor, [(n, images[n]) for indices in todo.values() for n in indices], out)
    with progress_bar("collecting", total, "images") if progress and todo else nullcontext(lambda _: None) as count:
        for shard, indices in todo.items():
            write_shard(out, shard, *extractor.shard([(n, images[n]) for n in indices], count))
    counts = totals(out, list(plan))
    if not any(counts["rows"].values()):
        raise InversionError(
            f"none of the {config.limit} images passed the inversion's quality check ({counts['dropped']}); "
            "does the model generate such images at this resolution, or is the quality limit too strict?"
        )
    done = replace(manifest, counts=counts, complete=True)
    done.write(out)
    return done


def benchmark_pairs() -> NamePairs:
    """Return all pairs of objects that one prompt of a benchmark names, for the benchmarks that can be held out."""
    prompts = (prompt for name in benchmarks.held_out_names() for prompt in benchmarks.prompts(name))
    return frozenset(frozenset(pair) for prompt in prompts for pair in combinations(prompt.objects, 2))


def _labelled_images(source: Source, config: CollectConfig) -> tuple[list[LabelledImage], SkipLog]:
    """The images to collect from, and what the source skipped. Raises DataError when there are none."""
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
        reasons = sorted(skipped.counts.items(), key=lambda item: (not item[0].startswith("file:"), -item[1]))[:4]
        raise DataError(
            f"none of the images in {config.data} can be used "
            f"({'; '.join(f'{reason}: {count}' for reason, count in reasons) or 'it lists none'})"
        )
    for reason in skipped.counts:
        if reason.startswith("file:"):
            log.warning("%s (%s)", reason, "; ".join(skipped.examples[reason]))
    return images, skipped


def _plan(images: Sequence[LabelledImage]) -> dict[str, list[int]]:
    """Map each shard id to the indices of its images. A shard holds images of one split."""
    plan = {}
    for split in SPLITS:
        members = [index for index, image in enumerate(images) if image.split == split]
        for start in range(0, len(members), SHARD):
            plan[f"{split}-{start // SHARD:04d}"] = members[start : start + SHARD]
    return plan


def _images_digest(images: Sequence[LabelledImage]) -> str:
    """A hash of which images these are, and in which order."""
    listed = "\n".join(f"{i.id}|{i.subject}|{i.predicate}|{i.object}|{i.split}" for i in images)
    return hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _start_or_resume(out: Path, manifest: Manifest) -> None:
    """Write the manifest, after a check that a collection already in ``out`` has the same settings."""
    if (out / "manifest.json").exists():
        Manifest.read(out).require_same(manifest, out)
    elif out.exists() and not all(storage.is_leftover(entry.name) for entry in out.iterdir()):
        raise DataError(f"{out} is not empty and holds no collection; name an empty or a new folder")
    storage.remove_leftovers(out, out / "shards")
    manifest.write(out)


def _announce(extractor: MapExtractor, images: Sequence[NumberedImage], out: Path) -> None:
    """Log the disk space and time needed. Raises DataError when the disk has less space than that."""
    size, seconds = extractor.estimate(images)
    log.info("%d images: about %s of maps, at most %.0f min", len(images), _readable(size), seconds / 60)
    free = shutil.disk_usage(out).free
    if size > free:
        raise DataError(
            f"the maps of {len(images)} images take about {_readable(size)}, but {out} has {_readable(free)} free; "
            "collect fewer images (--limit) or average over heads (--reduce layer-mean or mean)"
        )


def _readable(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
