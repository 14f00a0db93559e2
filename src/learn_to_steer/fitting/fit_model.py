"""Make a classifier for a model from images that it draws itself. A run that was stopped can be continued."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from learn_to_steer import registry, storage
from learn_to_steer.collection import (
    PATH,
    CollectConfig,
    CollectionWorker,
    Manifest,
    benchmark_pairs,
    collect,
    collect_on,
)
from learn_to_steer.collection.noise_levels import PROGRESS
from learn_to_steer.collection.preparation import labelling_detectors, named_objects
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.distributed import WorkerPool, check_options, open_workers
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.image_batches import BatchWork, EvaluationWorker
from learn_to_steer.evaluation.model import open_pipeline
from learn_to_steer.families import Variant
from learn_to_steer.fitting.config import FitConfig
from learn_to_steer.fitting.fit_report import leakage_facts, write_report
from learn_to_steer.fitting.trial import Trial
from learn_to_steer.loading import skeleton
from learn_to_steer.model_names import named_variant
from learn_to_steer.sources import PlannedPicture, SourceRequest
from learn_to_steer.training import TrainConfig, add_metrics, train
from learn_to_steer.training.depth_choice import possible_depths
from learn_to_steer.training.train_classifier import METRICS

log = logging.getLogger(__name__)
COLLECTION, TRIAL, SETTINGS, SOURCE = "collection", "trial", "config.json", "drawn"
BATCH = 16  # images drawn at a time; fewer where memory is short
LEAST, FEW = 8, 200  # usable images: below the first nothing is trained, below the second there is a warning
LEAKAGE = 0.10  # how much more often than by chance a wrong word of the prompt may be predicted
MORE = (
    "draw more images (--limit), other objects (--objects) or with another detector (--detectors), into another --out"
)


def fit(config: FitConfig, *, progress: bool = True) -> dict[str, Any]:
    """Make a classifier: let the model draw, label the images, train, and try the result on new prompts.

    Args:
        config: The settings.
        progress: Whether to show progress bars.

    Returns:
        The content of ``report.json``, see ``fit_report``.

    Raises:
        DataError: ``limit`` is 0, the folder holds a run with other settings, or too few images can be used: fewer than
            eight, or all with the same relation. The images are kept.
        WorkerError: Shards failed on workers; the others are done.
        SteerError: Anything that ``load_pipeline``, ``collect``, ``train`` and ``evaluate`` raise.
    """
    if config.limit == 0:
        raise DataError("the limit is 0, so that nothing is drawn; choose one from 1, or call explain to see the plan")
    out = Path(config.out)
    has_workers = check_options(config, config.device)
    _objects_and_detectors(config)  # reports mistakes before the model is loaded, which takes long
    _claim_folder(out, config)
    if has_workers:
        arguments = (config.in_process(), str(out / COLLECTION))
        with open_workers(config, FitWorker, *arguments, device=config.device) as pool:
            manifest, _ = collect_on(pool, out / COLLECTION, progress=progress)
            return _train_and_try(config, manifest, pool.ask("detector", None), None, pool, progress)
    pipe, variant = open_pipeline(config, steered=config.trial > 0)
    manifest = collect(pipe, out / COLLECTION, collect_config(config, variant), progress=progress)
    return _train_and_try(config, manifest, labelling_detector(config, variant), pipe, None, progress)


def _train_and_try(
    config: FitConfig, manifest: Manifest, detector: str, pipe: Any, pool: WorkerPool | None, progress: bool
) -> dict[str, Any]:
    """Train on the collection, try the classifier on new prompts, and write the report."""
    out = Path(config.out)
    data = out / COLLECTION
    _require_usable(data, manifest)
    trial = Trial(config, pipe, detector, data, out / TRIAL, pool=pool, progress=progress) if config.trial else None
    settings = TrainConfig(depth="auto", prompts="balanced", epochs=config.epochs, seed=config.seed)
    train(data, out, settings, progress=progress, steer=trial.steered if trial else None, hold_out=True)
    metrics = storage.read_json(out / METRICS, dict[str, Any])
    compared = trial.compare(out / f"depth-{metrics['depths']['chosen']}") if trial else None
    more: dict[str, Any] = {"trial": compared} if compared else {}
    more["warnings"] = warnings_of(manifest, metrics, compared)
    for text in more["warnings"]:
        log.warning(text)
    metrics = add_metrics(data, out, more)
    return write_report(out, config.written(), manifest, metrics, data, out / TRIAL)


class FitWorker(CollectionWorker):
    """Collects for ``fit``, and then draws its trials, with one pipeline, in a process of its own.

    Args:
        config: The settings.
        folder: The folder of the collection.
    """

    def __init__(self, config: FitConfig, folder: str) -> None:
        self._fit = config
        self._evaluation: EvaluationWorker | None = None
        super().__init__(self._open, folder)

    def _open(self) -> tuple[Any, CollectConfig]:
        self._pipe, self._variant = open_pipeline(self._fit, steered=self._fit.trial > 0)
        return self._pipe, collect_config(self._fit, self._variant)

    def detector(self, work: None) -> str:
        """Return the name of the detector that labels."""
        return labelling_detector(self._fit, self._variant)

    def resolved(self, config: EvaluateConfig) -> dict[str, Any]:
        """Return the settings in effect in an evaluation, which is opened."""
        return self._evaluating(config).resolved(config)

    def run_batch(self, work: BatchWork) -> list[dict[str, Any]]:
        """Return the rows of a batch of an evaluation."""
        return self._evaluating(work.config).run_batch(work)

    def _evaluating(self, config: EvaluateConfig) -> EvaluationWorker:
        self._evaluation = self._evaluation or EvaluationWorker(config, self._pipe)
        return self._evaluation


def collect_config(config: FitConfig, variant: Variant) -> CollectConfig:
    """Return the settings of the collection.

    Args:
        config: The settings of the run.
        variant: The facts of the model.
    """
    given = {"num_inference_steps": config.steps, "guidance_scale": config.guidance}
    return CollectConfig(
        model=config.model,
        source=SOURCE,
        inversion=PATH,
        limit=config.limit,
        seed=config.seed,
        objects=config.objects,
        detectors=config.detectors,
        contrast=config.contrast,
        side=config.side or variant.resolution,
        arguments={name: value for name, value in given.items() if value is not None},
        batch=config.batch or BATCH,
    )


def labelling_detector(config: FitConfig, variant: Variant) -> str:
    """Return the name of the detector that labels, the first of two, with its source if one is given."""
    return labelling_detectors(config.detectors, variant).split(",")[0].strip()


def warnings_of(manifest: Manifest, metrics: dict[str, Any], trial: dict[str, Any] | None) -> list[str]:
    """Return what a user of the classifier should know, as sentences.

    Args:
        manifest: The manifest of the collection.
        metrics: The metrics of the classifier.
        trial: What ``Trial.compare`` returned; None: there was no trial.
    """
    texts = []
    usable = sum(manifest.counts["pictures"].values())
    if usable < FEW:
        texts.append(
            f"only {usable} images could be used, which is too few for a good classifier ({FEW} or more are); "
            "draw more images (--limit) into another folder"
        )
    held_out = metrics.get("test") or metrics["val"]
    excess = leakage_facts(held_out)["above_chance"]
    remedy = "draw more images (--limit)" if manifest.drawn.get("contrast") else "run with --contrast"
    if excess is None:
        texts.append(
            "it is not known whether the classifier reads the prompt's words, since no held-out prompt names a wrong "
            f"relation; {remedy}, into another folder"
        )
    elif excess > LEAKAGE:
        texts.append(
            f"the classifier may read the prompt's words: where the prompt names a wrong relation, that relation is "
            f"predicted {excess:.2f} more often than by chance, on {held_out['pictures']} held-out images (at most "
            f"{LEAKAGE:.2f} is wanted); {remedy}, into another folder"
        )
    if trial and not trial["helps"]:
        low, high = trial["right"]["difference"][1:]
        texts.append(
            f"in the trial, {trial['images']} images, it is not certain that steering helps (difference between "
            f"{low:+.2f} and {high:+.2f}); try it on more prompts (--trial), or draw more images (--limit) into "
            "another folder"
        )
    return texts


def _claim_folder(out: Path, config: FitConfig) -> None:
    """Write ``config.json``; DataError if the folder holds a run with other settings, or other files."""
    storage.check_folder(out)
    path = out / SETTINGS
    ours = json.loads(json.dumps(config.decisive() | {"objects": _digest(config.objects)}))
    stored = storage.read_json(path, dict[str, Any], "repair it, or remove the folder") if path.exists() else {}
    theirs = stored.get("decisive")  # other verbs write a config.json without it
    if isinstance(theirs, dict):
        name = next((name for name in ours if theirs.get(name) != ours[name]), None)
        if name is not None:
            raise DataError(
                f"{out} holds a run with {name} {theirs.get(name)!r}, not {ours[name]!r}; choose another --out, or "
                "remove the folder"
            )
    elif out.exists() and not all(storage.is_leftover(entry.name) for entry in out.iterdir()):
        raise DataError(f"{out} is not empty and holds no classifier of fit; choose a new or an empty folder (--out)")
    storage.remove_leftovers(out)
    storage.write_json(path, config.written() | {"decisive": ours})


def _digest(file: str | None) -> str | None:
    return f"sha256:{storage.sha256(file)}" if file is not None else None


def _require_usable(data: Path, manifest: Manifest) -> None:
    """Raise DataError if there are too few images to train on, or all have the same relation."""
    usable = sum(manifest.counts["pictures"].values())
    kept = f"the images are kept in {data}"
    if usable < LEAST:
        raise DataError(f"only {usable} of the images that the model drew can be used ({kept}); {MORE}")
    labels = [label for label, count in manifest.drawn["labels"].items() if count]
    if len(labels) < 2:
        raise DataError(f"all {usable} images that can be used show the same relation, {labels[0]!r} ({kept}); {MORE}")


def _objects_and_detectors(config: FitConfig) -> tuple[tuple[str, ...], str]:
    """The objects to draw and the detectors. Raises DataError or UnknownNameError if they cannot be used."""
    variant = named_variant(config.model)
    source: Any = registry.load("sources", SOURCE)
    detectors = labelling_detectors(config.detectors, variant)
    for name in detectors.split(","):
        registry.load("detectors", name.strip().partition(":")[0])
    return named_objects(source, variant, config.objects), detectors


def explain(config: FitConfig) -> list[str]:
    """Return lines that tell what a run would do. Neither the model's weights nor those of detectors are loaded.

    Args:
        config: The settings. With ``limit`` 0, the usual number of images is explained.

    Raises:
        DataError: The objects cannot be used.
        UnknownNameError: There is no such model or detector.
    """
    objects, detectors = _objects_and_detectors(config)
    exclude = benchmark_pairs() if config.objects is None else frozenset()
    count = config.limit or FitConfig(out=config.out).limit
    request = SourceRequest(count, config.seed, 0, exclude=exclude, objects=objects)
    images: list[PlannedPicture] = registry.load("sources", SOURCE).planned(request)
    family, denoiser = skeleton(config.model, config.base)
    layout, variant = family.layout(denoiser), named_variant(config.model)
    levels = len(variant.levels if variant and variant.levels else PROGRESS)
    pairs = sum(len(image.pairs) for image in images)
    prompts = 1 if config.contrast is False else 2
    gib = prompts * pairs * levels * layout.pair_bytes / 2**30
    crowded = sum(len(image.objects) > 2 for image in images)
    held_out = sum(image.split != "train" for image in images)
    steps = config.steps or (variant.steps if variant else None)
    depths = ", ".join(map(str, possible_depths(len(layout.layers))))
    when = {True: "yes", False: "no", None: "if the model obeys more than .4 of the relations in its prompts"}
    return [
        f"model           {config.model}: {len(layout.layers)} layers with {layout.channels} maps of an object",
        f"draws           {len(images)} images{f' in {steps} steps' if steps else ''}, {crowded} of them with three to "
        f"five objects; {held_out} are held out",
        *(f"for example     {image.prompt()[0]}" for image in images[:3]),
        f"objects         {len(objects)}: {', '.join(objects[:9])}{', ...' if objects[9:] else ''}",
        f"labels          of {' and '.join(detectors.split(','))}, for two objects that are there once each",
        f"wrong words     are also read: {when[config.contrast]}",
        f"keeps           maps at {levels} noise levels of at most {pairs} pairs, at most {gib:.2f} GiB in "
        f"{config.out}/{COLLECTION}",
        f"trains          classifiers that read the first {depths} layers, at most {config.epochs} epochs each",
        f"tries           the chosen one on at most {config.trial} other prompts, with and without steering"
        if config.trial
        else "tries           nothing (--trial 0)",
        "time            is estimated from the first image when the run begins; give a --limit above 0 to begin",
    ]
