"""Collect attention maps of labelled pictures, each under a true and a wrong prompt; resumable after a kill."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, catalog, families, storage
from learn_to_steer.dataset.config import CollectConfig
from learn_to_steer.dataset.forwards import Collector, Numbered
from learn_to_steer.dataset.levels import default_levels, kept_times
from learn_to_steer.dataset.progress import counting
from learn_to_steer.dataset.shards import Manifest, is_done, remove_leftovers, totals, write_shard
from learn_to_steer.errors import DataError, InversionError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sources import LabelledPicture, Pairs, Skipped, Source
from learn_to_steer.sources._protocol import SPLITS

log = logging.getLogger(__name__)
SHARD = 32  # pictures; with two prompts and eight levels 512 rows


def collect(pipe: Any, out: str | Path, config: CollectConfig, *, progress: bool = True) -> Manifest:
    """Collect maps from ``pipe`` into the folder ``out``; finished shards of an earlier run are kept.

    Every picture is noised and shown to the denoiser under both prompts (conditional, no guidance), labelled with the
    true relation; if one prompt's inversion fails its quality check, both are dropped. Raises DataError when ``out``
    holds another collection or the source has no usable picture, InversionError when no picture passes,
    UnknownNameError and UnsupportedError for names and pipelines that do not exist or fit.
    """
    out = Path(out)
    storage.check_folder(out)
    if config.limit < 1 or config.batch < 1:
        raise DataError(f"limit and batch must be at least 1, got {config.limit} and {config.batch}")
    family = families.find(pipe)
    if config.side % family.cell(pipe):
        raise DataError(f"the side must be a multiple of {family.cell(pipe)} pixels, not {config.side}")
    source: Source = catalog.load("sources", config.source)
    times, levels = kept_times(pipe, family, config.levels or default_levels(pipe, family))
    classes = (*BASIC, *(DIAGONAL if config.diagonals else ()), NEUTRAL)
    skipped = Skipped()
    pictures = list(
        source.pictures(
            config.limit,
            config.seed,
            config.side,
            diagonals=config.diagonals,
            data=config.data,
            exclude=benchmark_pairs() if config.exclude_benchmarks else frozenset(),
            skipped=skipped,
        )
    )
    if not pictures:
        most = sorted(skipped.counts.items(), key=lambda item: (not item[0].startswith("file:"), -item[1]))[:4]
        raise DataError(
            f"none of the pictures in {config.data} can be learned from "
            f"({'; '.join(f'{reason}: {count}' for reason, count in most) or 'it lists none'})"
        )
    for reason in skipped.counts:
        if reason.startswith("file:"):
            log.warning("%s (%s)", reason, "; ".join(skipped.examples[reason]))
    plan = _plan(pictures)
    collector = Collector(pipe, family, config, times, levels, classes)
    manifest = Manifest(
        settings=config.settings(),
        weights=collector.weights_digest(),
        layout=collector.layout.as_dict(),
        fingerprint=collector.layout.fingerprint,
        classes=list(classes),
        levels=list(levels),
        source_note=source.NOTE,
        shards=list(plan),
        versions={name: _version(name) for name in ("learn-to-steer", "torch", "diffusers")},
        skipped=skipped.as_dict(),
        chosen=_digest(pictures) if config.data is not None else "",
    )
    _take_up(out, manifest)
    todo = {shard: numbers for shard, numbers in plan.items() if not is_done(out, shard)}
    total = sum(len(numbers) for numbers in todo.values())
    if todo:
        _announce(collector, [(n, pictures[n]) for numbers in todo.values() for n in numbers], out)
    with counting("collecting", total, "pictures") if progress and todo else nullcontext(lambda _: None) as count:
        for shard, numbers in todo.items():
            write_shard(out, shard, *collector.shard([(n, pictures[n]) for n in numbers], count))
    counts = totals(out, list(plan))
    if not any(counts["rows"].values()):
        raise InversionError(
            f"none of the {config.limit} pictures passed the inversion's quality check ({counts['dropped']}); "
            "does the model make such pictures at this side, or is the limit too strict?"
        )
    done = replace(manifest, counts=counts, complete=True)
    done.write(out)
    return done


def _announce(collector: Collector, pictures: Sequence[Numbered], out: Path) -> None:
    """Say what disk and time are needed; DataError when the disk has less than that."""
    size, seconds = collector.expected(pictures)
    log.info("%d pictures: about %s of maps, at most %.0f min", len(pictures), _shown(size), seconds / 60)
    free = shutil.disk_usage(out).free
    if size > free:
        raise DataError(
            f"the maps of {len(pictures)} pictures take about {_shown(size)}, but {out} has {_shown(free)} free; "
            "take fewer (--limit) or keep means over heads (--reduce layer-mean, or mean)"
        )


def _shown(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def benchmark_pairs() -> Pairs:
    """Every two objects that some benchmark's prompt names together, of the benchmarks that can be held out."""
    prompts = (prompt for name in benchmarks.held_out_names() for prompt in benchmarks.prompts(name))
    return frozenset(frozenset(pair) for prompt in prompts for pair in combinations(prompt.objects, 2))


def _digest(pictures: Sequence[LabelledPicture]) -> str:
    """Which pictures these are, and in which order."""
    chosen = "\n".join(f"{p.id}|{p.subject}|{p.predicate}|{p.object}|{p.split}" for p in pictures)
    return hashlib.sha256(chosen.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _plan(pictures: Sequence[LabelledPicture]) -> dict[str, list[int]]:
    """Shard id -> numbers of its pictures; every split has its own shards."""
    plan = {}
    for split in SPLITS:
        members = [number for number, picture in enumerate(pictures) if picture.split == split]
        for start in range(0, len(members), SHARD):
            plan[f"{split}-{start // SHARD:04d}"] = members[start : start + SHARD]
    return plan


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "run from its source folder, not installed"


def _take_up(out: Path, manifest: Manifest) -> None:
    """Begin a folder, or go on with one that was begun with the same settings."""
    if (out / "manifest.json").exists():
        Manifest.read(out).require_same(manifest, out)
        remove_leftovers(out)
    elif out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no collection; name an empty or a new folder")
    manifest.write(out)
