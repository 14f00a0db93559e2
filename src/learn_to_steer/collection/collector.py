"""Collect attention maps of labelled images, each under a true and a wrong prompt; a killed run can be resumed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from learn_to_steer import digests, storage
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.drawing import DrawnMaps
from learn_to_steer.collection.preparation import prepare
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import PICTURES, Manifest, ShardRecord, is_done, total_yield, totals, write_shard
from learn_to_steer.distributed import WorkerPool
from learn_to_steer.errors import DataError, InversionError, SteerError
from learn_to_steer.sources import SPLITS, LabelledImage, PlannedPicture
from learn_to_steer.versions import installed_versions
from learn_to_steer.worker_process import Shard, shard_name

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
    run = CollectionRun(pipe, out, config)
    manifest, extractor = run.manifest, run.extractor
    _start_or_resume(out, manifest)
    if isinstance(extractor, DrawnMaps) and extractor.contrast is None and is_done(out, manifest.shards[0]):
        extractor.contrast = _decided_contrast(out, manifest)
    todo = [shard for shard in manifest.shards if not is_done(out, shard)]
    total = sum(len(run.plan[shard]) for shard in todo)
    if todo:
        _announce(*run.estimate(todo), total, out, bool(manifest.drawn))
    with progress_bar("collecting", total, "images") if progress and todo else nullcontext(lambda _: None) as count:
        for shard in todo:
            run.make(shard, count)
    return _finish(out, config, manifest)


def collect_on(pool: WorkerPool, out: str | Path, *, progress: bool = True) -> tuple[Manifest, CollectConfig]:
    """Collect maps on workers into a folder that all of them see, as ``collect``; the maps are the same bits.

    Args:
        pool: Workers with the methods of ``CollectionWorker``.
        out: The folder of the collection.
        progress: Whether to show a progress bar.

    Returns:
        The manifest of the finished collection, and its settings.

    Raises:
        WorkerError: Shards failed on workers; the others are done.
        SteerError: As ``collect``.
    """
    out = Path(out)
    storage.check_folder(out)
    config, manifest, plan = pool.ask("plan", None)
    _start_or_resume(out, manifest)
    todo = [shard for shard in manifest.shards if not is_done(out, shard)]
    total = sum(len(plan[shard]) for shard in todo)
    if todo:
        size, seconds = pool.ask("estimate", todo)
        _announce(size, seconds / max(1, min(len(pool), len(todo))), total, out, bool(manifest.drawn))
    task = f"collecting on {len(pool)} workers"
    with progress_bar(task, total, "images") if progress and todo else nullcontext(lambda _: None) as count:

        def make(shards: Sequence[str], contrast: bool | None) -> None:
            pool.run(
                [Shard(_name(manifest, one), f"{one}, {len(plan[one])} images", (one, contrast)) for one in shards],
                out,
                lambda shard, result: count(result),
                method="make_shard",
            )

        contrast = None
        if manifest.drawn and config.contrast is None:
            make(todo[:1] if todo[:1] == manifest.shards[:1] else (), None)  # alone: it decides for the others
            contrast = _decided_contrast(out, manifest)
        make([shard for shard in todo if not is_done(out, shard)], contrast)
    storage.remove_leftovers(out / "shards", out / PICTURES)  # of workers that died
    return _finish(out, config, manifest), config


class CollectionRun:
    """What a collection is made of.

    Args:
        pipe: A diffusers pipeline of a known family.
        out: The folder of the collection.
        config: What to collect.

    Attributes:
        extractor: Makes the content of the shards.
        plan: The indices of the images of every shard.
        manifest: The manifest before anything is collected.

    Raises:
        SteerError: As ``collect``.
    """

    def __init__(self, pipe: Any, out: Path, config: CollectConfig) -> None:
        self._out = out
        ready = prepare(pipe, out, config)
        self._images: Sequence[Any] = ready.images
        self.extractor, self.plan = ready.extractor, _plan(self._images)
        self.manifest = Manifest(
            settings=config.settings(),
            weights=digests.sampled_weights(self.extractor.denoiser),
            layout=self.extractor.layout.as_dict(),
            fingerprint=self.extractor.layout.fingerprint,
            classes=list(ready.classes),
            levels=list(ready.levels),
            source_note=ready.note,
            shards=list(self.plan),
            versions=installed_versions("learn-to-steer", "torch", "diffusers"),
            skipped=ready.skipped.as_dict(),
            chosen=ready.chosen,
            drawn=ready.drawn,
        )

    def estimate(self, shards: Sequence[str]) -> tuple[int, float]:
        """Return how many bytes of maps some shards have, and the seconds that they take."""
        return self.extractor.estimate([one for shard in shards for one in self._numbered(shard)])

    def make(self, shard: str, count: Callable[[int], None]) -> None:
        """Make a shard, and write it.

        Args:
            shard: Its id.
            count: Called after every batch with its number of images.
        """
        write_shard(self._out, shard, *self.extractor.shard(self._numbered(shard), count))

    def _numbered(self, shard: str) -> list[tuple[int, Any]]:
        return [(n, self._images[n]) for n in self.plan[shard]]


class CollectionWorker:
    """Makes shards of a collection in a process of its own.

    Args:
        opened: Returns the pipeline and what to collect.
        out: The folder of the collection.
    """

    def __init__(self, opened: Callable[[], tuple[Any, CollectConfig]], out: str) -> None:
        pipe, self._config = opened()
        self._run = CollectionRun(pipe, Path(out), self._config)

    def describe(self) -> Manifest:
        """Return the manifest."""
        return self._run.manifest

    def plan(self, work: None) -> tuple[CollectConfig, Manifest, dict[str, list[int]]]:
        """Return what to collect, the manifest, and the indices of the images of every shard."""
        return self._config, self._run.manifest, self._run.plan

    def estimate(self, work: Sequence[str]) -> tuple[int, float]:
        """Return the bytes of some shards, and the seconds that they take."""
        return self._run.estimate(work)

    def make_shard(self, work: tuple[str, bool | None]) -> int:
        """Make a shard, with or without wrong words (None: it decides), and return its number of images."""
        shard, contrast = work
        if isinstance(self._run.extractor, DrawnMaps) and self._config.contrast is None:
            self._run.extractor.contrast = contrast
        self._run.make(shard, lambda _: None)
        return len(self._run.plan[shard])


def _name(manifest: Manifest, shard: str) -> str:
    """The name of a shard, which follows from the settings and the weights."""
    return shard_name(manifest.settings, manifest.weights, manifest.chosen, shard)


def _decided_contrast(out: Path, manifest: Manifest) -> bool | None:
    """Whether the first shard of drawn pictures was also read under wrong words: what it decided holds for all."""
    first = ShardRecord.read(out, manifest.shards[0]).drawn
    return first.contrast if first else None


def _finish(out: Path, config: CollectConfig, manifest: Manifest) -> Manifest:
    """Write the manifest of the finished collection, with its counts."""
    counts = totals(out, manifest.shards)
    if manifest.drawn:
        came = total_yield(out, manifest.shards)
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


def _announce(size: int, seconds: float, images: int, out: Path, drawn: bool) -> None:
    """Log the disk space and time needed. Raises DataError when the disk has less space than that."""
    bound = "about" if drawn else "at most"
    log.info("%d images: about %s of maps, %s %.0f min", images, _readable(size), bound, seconds / 60)
    free = shutil.disk_usage(out).free
    if size > free:
        raise DataError(
            f"the maps of {images} images take about {_readable(size)}, but {out} has {_readable(free)} free; "
            "collect fewer images (--limit) or average over heads (--reduce layer-mean or mean)"
        )


def _readable(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
