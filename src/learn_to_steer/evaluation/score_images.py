"""Score images that exist already, whatever tool generated them, with any detector and rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from learn_to_steer import benchmarks, storage
from learn_to_steer.configs import ScoreConfig
from learn_to_steer.distributed import check_options, open_workers
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.evaluation.image_folders import PromptImage, find_images
from learn_to_steer.evaluation.prompt_selection import PromptSelection
from learn_to_steer.evaluation.results import (
    Key,
    Row,
    library_versions,
    prompt_fields,
    prompts_digest,
    summarise,
    write_rows,
)
from learn_to_steer.evaluation.run_comparison import compare_runs, load_reference
from learn_to_steer.evaluation.scoring import (
    Scorer,
    default_detector,
    detection_query,
    load_scorer,
    require_finite,
    require_repeatable,
    require_some,
)
from learn_to_steer.evaluation.verifier_choice import is_same_detector
from learn_to_steer.geometry import Detection
from learn_to_steer.image_files import read_image
from learn_to_steer.placement import resolve_device
from learn_to_steer.result_rows import FILE as RESULTS
from learn_to_steer.result_rows import BoxEntry, read_rows, row_key
from learn_to_steer.worker_process import Shard, shard_name

Side = Annotated[int, Field(ge=1, le=2**31)]


class CachedDetections(BaseModel):
    """A row of ``detections.jsonl``: the detections in one image."""

    key: str
    """Hash of the image, and of the detector and what it looked for."""
    size: Annotated[list[Side], Field(min_length=2, max_length=2)]
    """Width and height of the image."""
    boxes: list[BoxEntry]
    """The detections."""


class EvaluatedWith(BaseModel):
    """What ``score`` reads in the config.json of ``evaluate``."""

    model: str | None = None
    benchmark: str | None = None
    prompts: str | None = None
    data: str | None = None
    detector: str | None = None
    verifier: str | None = None


COST = ("passes", "checks", "converged", "probability", "steps", "note", "satisfied", "tries", "why", "seconds")
BATCH = 16


def score(
    config: ScoreConfig,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    scorer: Scorer | None = None,
) -> dict[str, Any]:
    """Score images that exist already.

    Writes ``detections.jsonl`` (a cache that later calls reuse), ``results.jsonl`` (a row per image) and
    ``summary.json``.

    Args:
        config: The settings.
        on_progress: Called with the number of finished images and their total.
        scorer: The detector that scores, instead of the one that ``config`` names.

    Returns:
        The summary, as in ``evaluate``.

    Raises:
        DataError: Images are missing or cannot be read, or the detector is broken.
        UnsupportedError: The detector looked at the images while they were drawn, and selected those that are here.
        SteerError: Anything that ``load_scorer`` and ``PromptSelection.select`` raise.
    """
    if check_options(config, config.device) and scorer:
        raise UnsupportedError("workers load the detector by name; leave --workers and --ray out")
    storage.check_folder(config.out)
    config = _completed(config, scorer)
    out = Path(config.out)
    storage.remove_leftovers(out)
    if out.resolve() == Path(config.pictures).resolve():
        raise DataError(f"--out {out} is the folder of the images and their results; choose another folder")
    selection = PromptSelection(config.benchmark, config.prompts, config.data, config.limit, config.seed)
    selection.check()
    # Workers may have GPUs that this process has not.
    device = "cpu" if config.has_workers else config.device
    scorer = scorer or load_scorer(config.detector or "", device)
    reference = load_reference(config.against, config.similarity, config.out, scorer.identity)
    earlier = _earlier_rows(Path(config.pictures))
    prompts = selection.select(scorer, {index for index, _ in earlier} or None)
    images = find_images(config.pictures, prompts, config.images)
    detected = detect_images(scorer, images, out / "detections.jsonl", on_progress, config)
    rule = selection.rule(scorer)
    rows: dict[Key, Row] = {}
    for image, (detections, size) in zip(images, detected, strict=True):
        cost = {name: earlier.get(image.key, {}).get(name) for name in COST}
        score_fields = scorer.score(image.prompt, detections, rule, size)
        rows[image.key] = prompt_fields(image.prompt, image.sample) | cost | score_fields
    write_rows(out, rows)
    listed = list(rows.values())
    summary = summarise(listed) | {
        "metrics": benchmarks.metrics(config.benchmark, listed),
        "config": config.written(),
        "judged_by": scorer.identity,
        "prompts_sha256": prompts_digest(prompts),
        "versions": library_versions(),
    }
    if reference:
        summary["against"] = compare_runs(images, listed, reference, device)
    storage.write_json(out / "summary.json", summary)
    return summary


def detect_images(
    scorer: Scorer,
    images: Sequence[PromptImage],
    cache: Path,
    on_progress: Callable[[int, int], None] | None = None,
    config: ScoreConfig | None = None,
) -> list[tuple[list[Detection], tuple[int, int]]]:
    """Detect objects in images, with a cache of earlier detections.

    Args:
        scorer: The detector.
        images: The images.
        cache: JSON-lines file, keyed by the contents of an image and the identity of the detector.
        on_progress: Called with the number of finished images and their total.
        config: Names the workers, if there are some.

    Returns:
        The detections of each image, and its width and height in pixels.

    Raises:
        DataError: An image cannot be read. Or the detector is broken: it reports scores or boxes that are not finite,
            different detections for one image, or nothing in any image.
    """
    keys = [_cache_key(scorer, image) for image in images]
    cached = {row["key"]: row for row in storage.read_jsonl(cache, CachedDetections)} if cache.exists() else {}
    missing = [n for n, key in enumerate(keys) if key not in cached]
    batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]

    def keep(batch: Sequence[int], found: Sequence[dict[str, Any]]) -> None:
        for n, detected in zip(batch, found, strict=True):
            row = {"key": keys[n]} | detected
            storage.append_jsonl(cache, row)
            cached[keys[n]] = row
        if on_progress:
            on_progress(sum(key in cached for key in keys), len(images))

    if on_progress and missing:
        on_progress(len(images) - len(missing), len(images))
    if config is not None and config.has_workers and missing:
        _detect_on_workers(config, images, batches, cache, keep)
        _sort(cache, keys)
    else:
        for batch in batches:
            keep(batch, find_objects(scorer, [images[n] for n in batch], check_detector=batch is batches[0]))
    if on_progress:
        on_progress(len(images), len(images))
    rows = [cached[key] for key in keys]
    require_some(scorer, [row["boxes"] for row in rows], f"then remove {cache}")
    return [([_from_cache(entry) for entry in row["boxes"]], (row["size"][0], row["size"][1])) for row in rows]


def find_objects(scorer: Scorer, images: Sequence[PromptImage], check_detector: bool) -> list[dict[str, Any]]:
    """Detect objects in the images of one batch.

    Args:
        scorer: The detector.
        images: The images.
        check_detector: Whether to check that the detector sees the same in the same image.

    Returns:
        The size of each image and the detections, as the cache holds them.

    Raises:
        DataError: An image cannot be read, or the detector is broken.
    """
    if check_detector:
        require_repeatable(scorer, read_image(images[0].path), images[0].prompt, str(images[0].path))
    opened = [read_image(image.path) for image in images]
    rows = []
    for image, detections in zip(opened, scorer.detect(opened, [one.prompt for one in images]), strict=True):
        require_finite(detections)
        rows.append({"size": image.size, "boxes": [_cache_entry(one) for one in detections]})
    return rows


class DetectionWorker:
    """Detects objects in a process of its own.

    Args:
        detector: Name of the detector.
        device: Its device.
    """

    def __init__(self, detector: str, device: str) -> None:
        self._scorer = load_scorer(detector, resolve_device(device))

    def describe(self) -> dict[str, Any]:
        """Return the identity of the detector."""
        return dict(self._scorer.identity)

    def find(self, work: tuple[Sequence[PromptImage], bool]) -> list[dict[str, Any]]:
        """Return what ``find_objects`` returns."""
        return find_objects(self._scorer, *work)


def _detect_on_workers(
    config: ScoreConfig,
    images: Sequence[PromptImage],
    batches: Sequence[Sequence[int]],
    cache: Path,
    keep: Callable[[Sequence[int], list[dict[str, Any]]], None],
) -> None:
    """Detect objects on workers; a shard is a batch."""
    of_shard, shards = dict[str, Sequence[int]](), []
    for number, batch in enumerate(batches):
        paths = [str(images[n].path) for n in batch]
        name = shard_name(config.detector, number, paths)
        of_shard[name] = batch
        about = paths[0] if len(paths) == 1 else f"{paths[0]} to {paths[-1]}"
        shards.append(Shard(name, about, ([images[n] for n in batch], number == 0)))
    arguments = (config.detector or "", config.device)
    with open_workers(config, DetectionWorker, *arguments, device=config.device, most=len(shards)) as pool:
        pool.run(shards, cache.parent, lambda shard, found: keep(of_shard[shard.name], found), method="find")


def _sort(cache: Path, keys: Sequence[str]) -> None:
    """Bring the rows of a cache into the order of the images, whatever the order in which workers were done."""
    rows = storage.read_jsonl(cache, CachedDetections)
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    rows.sort(key=lambda row: first.get(row["key"], -1))
    storage.write_atomic(cache, b"".join(map(storage.jsonl_line, rows)))


def _completed(config: ScoreConfig, scorer: Scorer | None) -> ScoreConfig:
    """``config`` with the prompts and detector of the evaluation that generated the images, unless others are named.

    Raises DataError if no detector is named and none is known for the model, UnsupportedError if it is the verifier.
    """
    if not Path(config.pictures).exists():
        raise DataError(
            f"{config.pictures} does not exist; name the folder of the images, or a JSON-lines file that lists them"
        )
    path = Path(config.pictures) / "config.json"
    made_with: Any = {}
    if path.is_file():
        made_with = storage.read_json(path, EvaluatedWith, "repair it, or name --benchmark and --detector").model_dump()
    if made_with and config.benchmark is None and config.prompts is None:
        config = replace(config, **{name: made_with.get(name) for name in ("benchmark", "prompts", "data")})
    detector = config.detector or (scorer.detector.name if scorer else made_with.get("detector"))
    detector = detector or default_detector(made_with.get("model"))
    if is_same_detector(made_with.get("verifier") or "", detector):
        raise UnsupportedError(
            f"{detector} selected the images in {config.pictures} while they were drawn, so that its score says "
            "nothing; choose another --detector"
        )
    return replace(config, detector=detector)


def _earlier_rows(folder: Path) -> dict[Key, Row]:
    """The rows of the evaluation that generated the images; none for images of other tools.

    Raises DataError if that evaluation was not finished, since some images are missing.
    """
    if not (folder / "config.json").is_file() or not (folder / RESULTS).is_file():
        return {}
    if not (folder / "summary.json").is_file():
        raise DataError(f"the evaluation in {folder} was stopped before its end; run evaluate again to complete it")
    return {row_key(row): row for row in read_rows(folder)}


def _cache_key(scorer: Scorer, image: PromptImage) -> str:
    """A key of the image, the detector, and the query as far as the detector depends on it."""
    query = detection_query(image.prompt)
    names = [*query.names] if scorer.vocabulary is None else []
    identity = [scorer.identity, names, query.colors]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{storage.sha256(image.path)[:24]}-{digest[:12]}"


def _cache_entry(one: Detection) -> dict[str, Any]:
    color = {"color": one.color} if one.color else {}
    return {"name": one.name, "score": float(one.score), "box": [float(edge) for edge in one.box], **color}


def _from_cache(entry: dict[str, Any]) -> Detection:
    left, top, right, bottom = entry["box"]
    return Detection(entry["name"], entry["score"], (left, top, right, bottom), entry.get("color"))
