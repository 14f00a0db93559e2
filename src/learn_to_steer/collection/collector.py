"""Collect attention maps of labelled images, each under a true and a wrong prompt; a killed run can be resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, digests, families, registry, storage
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.drawing import DrawnMaps
from learn_to_steer.collection.map_extractor import MapExtractor
from learn_to_steer.collection.noise_levels import default_levels, kept_times, sampling_path
from learn_to_steer.collection.picture_labels import PictureLabels, load_labels
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import (
    PICTURES,
    Manifest,
    ShardRecord,
    is_done,
    total_yield,
    totals,
    write_shard,
)
from learn_to_steer.configs import CollectSettings
from learn_to_steer.errors import DataError, InversionError, SteerError
from learn_to_steer.families import Family, Variant
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sampling import loaded_variant
from learn_to_steer.sources import (
    SPLITS,
    LabelledImage,
    NamePairs,
    PlannedPicture,
    SkipLog,
    Source,
    SourceRequest,
)
from learn_to_steer.versions import installed_versions

log = logging.getLogger(__name__)
PATH = "path"  # the inversion of pictures that the model draws
DEFAULT_DETECTOR = "owlv2"  # where neither the user nor the model names one
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
    check_source(source, config)
    classes = (*BASIC, *(DIAGONAL if config.diagonals else ()), NEUTRAL)
    work = (_drawing if hasattr(source, "planned") else _reading)(pipe, family, source, config, classes, out)
    images, extractor, plan = work.images, work.extractor, _plan(work.images)
    manifest = Manifest(
        settings=config.settings(),
        weights=digests.sampled_weights(extractor.denoiser),
        layout=extractor.layout.as_dict(),
        fingerprint=extractor.layout.fingerprint,
        classes=list(classes),
        levels=list(work.levels),
        source_note=source.NOTE,
        shards=list(plan),
        versions=installed_versions("learn-to-steer", "torch", "diffusers"),
        skipped=work.skipped.as_dict(),
        chosen=work.chosen,
        drawn=work.drawn,
    )
    _start_or_resume(out, manifest)
    if isinstance(extractor, DrawnMaps) and extractor.contrast is None and is_done(out, next(iter(plan))):
        first = ShardRecord.read(out, next(iter(plan))).drawn
        extractor.contrast = first.contrast if first else None
    todo = {shard: indices for shard, indices in plan.items() if not is_done(out, shard)}
    total = sum(len(indices) for indices in todo.values())
    if todo:
        _announce(extractor, [(n, images[n]) for indices in todo.values() for n in indices], out)
    with progress_bar("collecting", total, "images") if progress and todo else nullcontext(lambda _: None) as count:
        for shard, indices in todo.items():
            write_shard(out, shard, *extractor.shard([(n, images[n]) for n in indices], count))
    counts = totals(out, list(plan))
    if manifest.drawn:
        manifest = replace(manifest, drawn=manifest.drawn | (came := total_yield(out, list(plan))))
        manifest = replace(manifest, skipped=manifest.skipped | came["skipped"])
    if not any(counts["rows"].values()):
        raise _nothing_kept(config, manifest, counts["dropped"])
    done = replace(manifest, counts=counts, complete=True)
    done.write(out)
    return done


@dataclass(frozen=True)
class _Work:
    """What there is to do, whether images are read or drawn.

    Attributes:
        images: The images, or the plans of those that the model draws.
        extractor: Makes the content of the shards.
        levels: The noise levels, noisiest first.
        skipped: What was left out so far.
        chosen: Hash of the list of images; empty where the settings determine it.
        drawn: What is drawn and how; empty where images are read.
    """

    images: Sequence[LabelledImage] | Sequence[PlannedPicture]
    extractor: MapExtractor | DrawnMaps
    levels: tuple[float, ...]
    skipped: SkipLog
    chosen: str = ""
    drawn: dict[str, Any] = field(default_factory=dict)


def _reading(
    pipe: Any, family: Family, source: Source, config: CollectConfig, classes: Sequence[str], out: Path
) -> _Work:
    times, levels = kept_times(pipe, family, config.levels or default_levels(pipe, family))
    images, skipped = _labelled_images(source, config)
    extractor = MapExtractor(pipe, family, config, times, levels, classes)
    return _Work(images, extractor, levels, skipped, _images_digest(images) if config.data is not None else "")


def _drawing(pipe: Any, family: Family, source: Any, config: CollectConfig, classes: Sequence[str], out: Path) -> _Work:
    variant = loaded_variant(pipe) or family.default_variant(pipe, config.model)
    detectors = config.detectors or variant.detector or DEFAULT_DETECTOR
    labels = load_labels(detectors, str(pipe._execution_device), config.diagonals)
    objects, skipped = _objects(source, variant, config, labels)
    exclude = benchmark_pairs() if config.exclude_benchmarks or config.objects is None else frozenset()
    plans: list[PlannedPicture] = source.planned(
        SourceRequest(config.limit, config.seed, config.side, config.diagonals, exclude=exclude, objects=objects)
    )
    path = sampling_path(pipe, family, variant, config.arguments, config.side, config.levels)
    drawn = {
        "objects": list(objects),
        "detectors": labels.identities,
        "arguments": dict(path.arguments),
        "steps": list(path.kept),
    }
    listed = json.dumps([drawn, [[plan.id, plan.split, *plan.prompt()] for plan in plans]], default=str)
    chosen = hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    extractor = DrawnMaps(pipe, family, config, path, classes, labels, out / PICTURES)
    return _Work(plans, extractor, path.levels, skipped, chosen, drawn)


def _objects(
    source: Any, variant: Variant, config: CollectConfig, labels: PictureLabels
) -> tuple[tuple[str, ...], SkipLog]:
    """The objects to draw: those of a file, which all detectors must know, or the usual ones that they know."""
    skipped = SkipLog()
    if config.objects is not None:
        names = source.read_objects(config.objects)
    else:
        names = tuple(variant.objects()) if variant.objects else source.common_objects()
    known = labels.known(names)
    unknown = [name for name in names if name not in known]
    if unknown and config.objects is not None:
        raise DataError(
            f"{config.objects}: a detector has no class for {', '.join(unknown)}; leave them out, or choose detectors "
            "that look for any word (--detectors owlv2)"
        )
    for name in unknown:
        skipped.add("object: a detector has no class for it", name)
    return known, skipped


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


def check_source(source: Source, config: CollectSettings) -> None:
    """Check that the settings fit a source, whose pictures the model draws or which has some.

    Args:
        source: The source.
        config: The settings.

    Raises:
        DataError: A setting is for the other kind of source.
    """
    draws = hasattr(source, "planned")
    if config.inversion is not None and draws != (config.inversion == PATH):
        raise DataError(
            f"the inversion {PATH} and sources whose pictures the model draws need each other: use --source drawn with "
            f"--inversion {PATH}, or neither"
        )
    if draws:
        given = {"data": config.data, "quality": config.quality}
        what = "pictures that the model draws need no --data and no --quality"
    else:
        given = {"objects": config.objects, "detectors": config.detectors or None, "contrast": config.contrast}
        what = "--objects, --detectors and --contrast are for pictures that the model draws (--source drawn)"
    if named := [name for name, value in given.items() if value is not None]:
        raise DataError(f"the setting {named[0]} does not fit the source: {what}")


@cache
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


def _plan(images: Sequence[LabelledImage] | Sequence[PlannedPicture]) -> dict[str, list[int]]:
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


def _announce(extractor: MapExtractor | DrawnMaps, images: Sequence[Any], out: Path) -> None:
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
