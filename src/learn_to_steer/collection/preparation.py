"""What a collection is made of, before the first forward: images that are read, or pictures that the model draws."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, families, registry
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.drawing import DrawnMaps
from learn_to_steer.collection.map_extractor import MapExtractor
from learn_to_steer.collection.noise_levels import default_levels, kept_times, sampling_path
from learn_to_steer.collection.picture_labels import PictureLabels, load_labels
from learn_to_steer.collection.shards import PICTURES
from learn_to_steer.conditioning import record
from learn_to_steer.configs import CollectSettings
from learn_to_steer.errors import DataError
from learn_to_steer.families import Family, Variant
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.sampling import loaded_variant
from learn_to_steer.sources import (
    DrawingSource,
    LabelledImage,
    NamePairs,
    PlannedPicture,
    SkipLog,
    Source,
    SourceRequest,
)

log = logging.getLogger(__name__)
PATH = "path"  # the inversion of pictures that the model draws
DEFAULT_DETECTOR = "owlv2"  # where neither the user nor the model names one
EXAMPLES = 5  # prompts that an estimate shows


@dataclass(frozen=True)
class Preparation:
    """What there is to do, whether images are read or drawn.

    Attributes:
        images: The images, or the plans of those that the model draws.
        extractor: Makes the content of the shards.
        classes: Names of the relations, in the order of their labels.
        levels: The noise levels, noisiest first.
        note: Where the images come from, and their licence.
        skipped: What was left out so far.
        chosen: Hash of the list of images; empty where the settings determine it.
        drawn: What is drawn and how; empty where images are read.
    """

    images: Sequence[LabelledImage | PlannedPicture]
    extractor: MapExtractor | DrawnMaps
    classes: tuple[str, ...]
    levels: tuple[float, ...]
    note: str
    skipped: SkipLog
    chosen: str = ""
    drawn: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawingEstimate:
    """What a collection of pictures that the model draws would be.

    Attributes:
        pictures: Their number.
        objects: The names of the objects.
        prompts: The first few prompts.
        detectors: The identities of the detectors that label the pictures.
        arguments: The arguments of the pipeline calls.
        levels: The noise levels at which maps are kept, noisiest first.
        size: Of maps and pictures, in bytes, if every pair of objects can be used.
        seconds: The time that drawing and reading takes.
    """

    pictures: int
    objects: tuple[str, ...]
    prompts: tuple[str, ...]
    detectors: tuple[dict[str, Any], ...]
    arguments: dict[str, Any]
    levels: tuple[float, ...]
    size: int
    seconds: float


def prepare(pipe: Any, out: Path, config: CollectConfig) -> Preparation:
    """Choose the images, and prepare to read or to draw them. Nothing is written.

    Args:
        pipe: A diffusers pipeline of a known family.
        out: The folder of the collection.
        config: What to collect.

    Raises:
        DataError: The settings do not fit the model or the source, or the source has no usable image.
        UnknownNameError: There is no such source, inversion or detector.
        UnsupportedError: The family of the pipeline is not known.
    """
    family = families.find(pipe)
    if config.side % family.pixel_multiple(pipe):
        raise DataError(f"the side must be a multiple of {family.pixel_multiple(pipe)} pixels, not {config.side}")
    source: Any = registry.load("sources", config.source)
    check_source(source, config)
    classes = (*BASIC, *(DIAGONAL if config.diagonals else ()), NEUTRAL)
    if hasattr(source, "planned"):
        return _prepare_drawing(pipe, family, source, config, classes, out)
    # Some schedulers shift their noise levels by the size of the image, and know it from a call of the pipeline.
    record(pipe, family, ["a"], config.side, config.side, config.arguments)
    times, levels = kept_times(pipe, family, config.levels or default_levels(pipe, family))
    images, skipped = _labelled_images(source, config)
    extractor = MapExtractor(pipe, family, config, times, levels, classes)
    chosen = _images_digest(images) if config.data is not None else ""
    return Preparation(images, extractor, classes, levels, source.NOTE, skipped, chosen)


def estimate_drawing(pipe: Any, config: CollectConfig) -> DrawingEstimate:
    """Tell what a collection of pictures that the model draws would be, and what it would take. None is drawn.

    Args:
        pipe: A diffusers pipeline of a known family.
        config: What to collect, with a source whose pictures the model draws.

    Raises:
        DataError: The pictures of the source are not drawn by the model, or as in ``prepare``.
        SteerError: As in ``prepare``.
    """
    ready = prepare(pipe, Path(), config)
    plans = [plan for plan in ready.images if isinstance(plan, PlannedPicture)]
    if not isinstance(ready.extractor, DrawnMaps):
        raise DataError(f"the pictures of the source {config.source} exist already; the model draws those of drawn")
    size, seconds = ready.extractor.estimate(list(enumerate(plans)))
    return DrawingEstimate(
        len(plans),
        tuple(ready.drawn["objects"]),
        tuple(plan.prompt()[0] for plan in plans[:EXAMPLES]),
        tuple(ready.drawn["detectors"]),
        ready.drawn["arguments"],
        ready.levels,
        size,
        seconds,
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
            "the inversion path and sources whose pictures the model draws need each other: use --source drawn with "
            "--inversion path, or neither"
        )
    if draws:
        given = {"data": config.data, "quality": config.quality}
        what = "pictures that the model draws need no --data and no --quality"
    else:
        given = {"objects": config.objects, "detectors": config.detectors or None, "contrast": config.contrast}
        what = "--objects, --detectors and --contrast are for pictures that the model draws (--source drawn)"
    if named := [name for name, value in given.items() if value is not None]:
        raise DataError(f"the setting {named[0]} does not fit the source: {what}")


def labelling_detectors(given: str | None, variant: Variant | None) -> str:
    """Return the names of the detectors that label what a model draws, separated by commas.

    Args:
        given: Those that the user names, if any.
        variant: The model; None if unknown.
    """
    return given or (variant.detector if variant else None) or DEFAULT_DETECTOR


def named_objects(source: DrawingSource, variant: Variant | None, file: str | None) -> tuple[str, ...]:
    """Return the objects that are drawn, before those are left out that a detector does not know.

    Args:
        source: The source of the pictures.
        variant: The model; None if unknown.
        file: The user's file of names; None: the model's own objects, or else common ones.

    Raises:
        DataError: The file cannot be used.
    """
    if file is not None:
        return source.read_objects(file)
    return tuple(variant.objects()) if variant and variant.objects else source.common_objects()


@cache
def benchmark_pairs() -> NamePairs:
    """Return all pairs of objects that one prompt of a benchmark names, for the benchmarks that can be held out."""
    prompts = (prompt for name in benchmarks.held_out_names() for prompt in benchmarks.prompts(name))
    return frozenset(frozenset(pair) for prompt in prompts for pair in combinations(prompt.objects, 2))


def _prepare_drawing(
    pipe: Any, family: Family, source: DrawingSource, config: CollectConfig, classes: tuple[str, ...], out: Path
) -> Preparation:
    variant = loaded_variant(pipe) or family.default_variant(pipe, config.model)
    labels = load_labels(labelling_detectors(config.detectors, variant), str(pipe._execution_device), config.diagonals)
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
    return Preparation(plans, extractor, classes, path.levels, source.NOTE, skipped, chosen, drawn)


def _objects(
    source: DrawingSource, variant: Variant, config: CollectConfig, labels: PictureLabels
) -> tuple[tuple[str, ...], SkipLog]:
    """The objects to draw: those of a file, which all detectors must know, or the usual ones that they know."""
    skipped = SkipLog()
    names = named_objects(source, variant, config.objects)
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


def _images_digest(images: Sequence[LabelledImage]) -> str:
    """A hash of which images these are, and in which order."""
    listed = "\n".join(f"{i.id}|{i.subject}|{i.predicate}|{i.object}|{i.split}" for i in images)
    return hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()[:12]
