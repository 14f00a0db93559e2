"""Make a classifier for a model from images that it draws itself. A run that was stopped can be continued."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.collection import CollectConfig, Manifest, MapDataset, collect
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.model import open_pipeline
from learn_to_steer.families import Variant
from learn_to_steer.fitting.config import FitConfig
from learn_to_steer.fitting.fit_report import write_report
from learn_to_steer.fitting.trial import Trial
from learn_to_steer.training import TrainConfig, add_metrics, train
from learn_to_steer.training.train_classifier import METRICS

log = logging.getLogger(__name__)
COLLECTION, TRIAL, SETTINGS = "collection", "trial", "config.json"
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
        DataError: The folder holds a run with other settings, or too few images can be used: fewer than eight, or all
            with the same relation. The images are kept.
        SteerError: Anything that ``load_pipeline``, ``collect``, ``train`` and ``evaluate`` raise.
    """
    out = Path(config.out)
    _claim_folder(out, config)
    pipe, variant = open_pipeline(config)
    data = out / COLLECTION
    manifest = collect(pipe, data, collect_config(config, variant), progress=progress)
    _require_usable(data, manifest)
    trial = Trial(config, pipe, labelling_detector(config, variant), data, out / TRIAL) if config.trial else None
    settings = TrainConfig(depth="auto", prompts="balanced", epochs=config.epochs, seed=config.seed)
    train(data, out, settings, progress=progress, steer=trial.steered if trial else None, hold_out=True)
    metrics = storage.read_json(out / METRICS, dict[str, Any])
    compared = trial.compare(out / f"depth-{metrics['depths']['chosen']}") if trial else None
    more: dict[str, Any] = {"trial": compared} if compared else {}
    more["warnings"] = warnings_of(manifest, metrics, compared)
    for text in more["warnings"]:
        log.warning(text)
    metrics = add_metrics(data, out, more)
    return write_report(out, asdict(config), manifest, metrics, data, out / TRIAL)


def collect_config(config: FitConfig, variant: Variant) -> CollectConfig:
    """Return the settings of the collection.

    Args:
        config: The settings of the run.
        variant: The facts of the model.
    """
    return CollectConfig(
        model=config.model,
        source="drawn",
        inversion="path",
        limit=config.limit,
        seed=config.seed,
        objects=config.objects,
        detectors=config.detectors or "",
        contrast=config.contrast,
        side=config.side or variant.resolution,
        arguments={**variant.arguments, "guidance_scale": config.guidance or variant.guidance},
        **({"batch": config.batch} if config.batch else {}),
    )


def labelling_detector(config: FitConfig, variant: Variant) -> str:
    """Return the name of the detector that labels, the first of two, with its source if one is given."""
    return (config.detectors or variant.detector or "owlv2").split(",")[0].strip()


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
    probe = (metrics.get("test") or metrics["val"])["leakage"]["both"]
    excess = probe["names_prompted_word"] - probe["by_chance"]
    if excess > LEAKAGE:
        texts.append(
            f"where the prompt names a wrong relation, that relation is predicted {excess:.2f} more often than by "
            f"chance (at most {LEAKAGE:.2f} is wanted): the classifier reads the prompt's words; run with --contrast, "
            "into another folder"
        )
    if trial and not trial["helps"]:
        low, high = trial["right"]["difference"][1:]
        texts.append(
            f"on {trial['images']} new prompts it is not certain that steering helps (difference between {low:+.2f} "
            f"and {high:+.2f}); draw more images (--limit), or try it on more prompts (--trial)"
        )
    return texts


def _claim_folder(out: Path, config: FitConfig) -> None:
    """Write ``config.json``; DataError if the folder holds a run with other settings, or other files."""
    storage.check_folder(out)
    path = out / SETTINGS
    ours = json.loads(json.dumps(config.decisive() | {"objects": _digest(config.objects)}))
    if path.exists():
        stored = storage.read_json(path, dict[str, Any], "repair it, or remove the folder").get("decisive")
        theirs = stored if isinstance(stored, dict) else {}
        name = next((name for name in ours if theirs.get(name) != ours[name]), None)
        if name is not None:
            raise DataError(
                f"{out} holds a run with {name} {theirs.get(name)!r}, not {ours[name]!r}; choose another --out, or "
                "remove the folder"
            )
    elif out.exists() and not all(storage.is_leftover(entry.name) for entry in out.iterdir()):
        raise DataError(f"{out} is not empty and holds no classifier of fit; choose a new or an empty folder (--out)")
    storage.remove_leftovers(out)
    storage.write_json(path, asdict(config) | {"decisive": ours})


def _digest(file: str | None) -> str | None:
    return f"sha256:{storage.sha256(file)}" if file is not None else None


def _require_usable(data: Path, manifest: Manifest) -> None:
    """Raise DataError if there are too few images to train on, or all have the same relation."""
    usable = sum(manifest.counts["pictures"].values())
    kept = f"the images are kept in {data}"
    if usable < LEAST:
        raise DataError(f"only {usable} of the images that the model drew can be used ({kept}); {MORE}")
    labels = set[int]()
    for split in [split for split, rows in manifest.counts["rows"].items() if rows]:
        labels |= set(MapDataset.open(data, split, in_memory=0).label.tolist())
    if len(labels) < 2:
        only = manifest.classes[labels.pop()]
        raise DataError(f"all {usable} images that can be used show the same relation, {only!r} ({kept}); {MORE}")


def explain(config: FitConfig) -> list[str]:
    """Return lines that tell what a run would do; the model is loaded, but nothing is drawn.

    Args:
        config: The settings.
    """
    raise NotImplementedError
