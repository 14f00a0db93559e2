"""Collect attention maps of labelled images, each under a true and a wrong prompt; a killed run can be resumed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from learn_to_steer import digests, storage
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.drawing import DrawnMaps
from learn_to_steer.collection.map_extractor import MapExtractor
from learn_to_steer.collection.preparation import prepare
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import Manifest, ShardRecord, is_done, total_yield, totals, write_shard
from learn_to_steer.errors import DataError, InversionError, SteerError
from learn_to_steer.sources import SPLITS, LabelledImage, PlannedPicture
from learn_to_steer.versions import installed_versions

log = logging.getLogger(__name__)
SHARD = 32  # images per shard: 512 rows with two prompts and eight noise levels


def collect(pipe: Any, out: str | Path, config: CollectConfig, *, progress: bool = True) -> Manifest:
    """Collect maps from a pipeline into a folder; finished shards of an earlier run are kept.

    Pictures that the model draws itself are labelled by detectors, and their maps are those of the sampling path. Every
    other image is noised and passed to the denoiser once with a true prompt and once with a wrong one, without
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
    ready = prepare(pipe, out, config)
    images: Sequence[Any] = ready.images
    extractor, plan = ready.extractor, _plan(images)
    manifest = Manifest(
        settings=config.settings(),
        weights=digests.sampled_weights(extractor.denoiser),
        layout=extractor.layout.as_dict(),
        fingerprint=extractor.layout.fingerprint,
        classes=list(ready.classes),
        levels=list(ready.levels),
        source_note=ready.note,
        shards=list(plan),
        versions=installed_versions("learn-to-steer", "torch", "diffusers"),
        skipped=ready.skipped.as_dict(),
        chosen=ready.chosen,
        drawn=ready.drawn,
    )
    _start_or_resume(out, manifest)
    if isinstance(extractor, DrawnMaps) and extractor.contrast is None and is_done(out, manifest.shards[0]):
        first = ShardRecord.read(out, manifest.shards[0]).drawn
        extractor.contrast = first.contrast if first else None  # what the first shard decided
    todo = {shard: indices for shard, indices in plan.items() if not is_done(out, shard)}
    total = sum(len(indices) for indices in todo.values())
    if todo:
        _announce(extractor, [(n, images[n]) for indices in todo.values() for n in indices], out)
    with progress_bar("collecting", total, "images") if progress and todo else nullcontext(lambda _: None) as count:
        for shard, indices in todo.items():
            write_shard(out, shard, *extractor.shard([(n, images[n]) for n in indices], count))
    counts = totals(out, list(plan))
    if manifest.drawn:
        came = total_yield(out, list(plan))
        skipped = manifest.skipped | came.pop("skipped")
        manifest = replace(manifest, drawn=manifest.drawn | came, skipped=skipped)
    if not any(counts["rows"].values()):
        raise _nothing_kept(config, manifest, counts["dropped"])
    done = replace(manifest, counts=counts, complete=True)
    done.write(out)
    return done


def _nothing_kept(config: CollectConfig, manifest: Manifest, dropped: Mapping[str, int]) -> SteerError:
    if manifest.drawn:
        return DataError(
            f"none of the {config.limit} pictures that the model drew can be used ({dropped}); draw more (--limit), or "
            "look at them: does the model draw these objects, and do the detectors find them?"
        )
    return InversionError(
        f"none of the {config.limit} images passed the inversion's quality check ({dropped}); "
        "does the model generate such images at this resolution, or is the quality limit too strict?"
    )


def _plan(images: Sequence[LabelledImage | PlannedPicture]) -> dict[str, list[int]]:
    """Map each shard id to the indices of its images. A shard holds images of one split."""
    plan = {}
    for split in SPLITS:
        members = [index for index, image in enumerate(images) if image.split == split]
        for start in range(0, len(members), SHARD):
            plan[f"{split}-{start // SHARD:04d}"] = members[start : start + SHARD]
    return plan


def _start_or_resume(out: Path, manifest: Manifest) -> None:
    """Write the manifest, after a check that a collection already in ``out`` has the same settings."""
    if (out / "manifest.json").exists():
        Manifest.read(out).require_same(manifest, out)
    elif out.exists() and not all(storage.is_leftover(entry.name) for entry in out.iterdir()):
        raise DataError(f"{out} is not empty and holds no collection; name an empty or a new folder")
    storage.remove_leftovers(out, out / "shards")
    manifest.write(out)


def _announce(extractor: MapExtractor | DrawnMaps, images: Sequence[Any], out: Path) -> None:
    """Log the disk space and time needed. Raises DataError when the disk has less space than that."""
    size, seconds = extractor.estimate(images)
    bound = "about" if isinstance(extractor, DrawnMaps) else "at most"
    log.info("%d images: about %s of maps, %s %.0f min", len(images), _readable(size), bound, seconds / 60)
    free = shutil.disk_usage(out).free
    if size > free:
        raise DataError(
            f"the maps of {len(images)} images take about {_readable(size)}, but {out} has {_readable(free)} free; "
            "collect fewer images (--limit) or average over heads (--reduce layer-mean or mean)"
        )


def _readable(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
