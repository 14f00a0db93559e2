"""Train a classifier on a collection and write it: of all layers, of a given depth, or of the depth that is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from learn_to_steer import classifier, storage
from learn_to_steer.classifier.file import FILE
from learn_to_steer.collection import Manifest
from learn_to_steer.errors import DataError
from learn_to_steer.model_names import hub_source
from learn_to_steer.processes import require_one_process
from learn_to_steer.training import checkpoint
from learn_to_steer.training.config import AUTO, TrainConfig
from learn_to_steer.training.depth_choice import (
    Steered,
    candidate_depths,
    choose_by_accuracy,
    confirm_by_steering,
    steered_levels,
)
from learn_to_steer.training.process_group import ProcessGroup
from learn_to_steer.training.trainer import Trained, fit

METRICS = "metrics.json"
NOT_IN_HEADER = ("config", "history")  # entries of that file that are not in the classifier's file


def train(
    data: str | Path,
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    progress: bool = True,
    steer: Callable[[Path], Steered] | None = None,
    hold_out: bool = False,
) -> Path:
    """Train a relation classifier; write ``relation_classifier.safetensors``, its model card and ``metrics.json``.

    Training stops when the validation loss has not improved for ``config.patience`` epochs. Temperatures are fitted on
    the validation images. A killed run is resumed by the same call.

    With ``config.depth`` "auto", classifiers of several depths are trained, each in a folder of its own in ``out``, and
    the chosen one is written to ``out``; see ``depth_choice``.

    Args:
        data: The folder of a collection.
        out: The folder to write to.
        config: Settings of optimiser and network; None: the defaults.
        progress: Whether to show a progress bar.
        steer: Confirms a depth that was chosen: steers some prompts with the classifier in a folder, and returns which
            images are right. None: the choice is not confirmed.
        hold_out: If the collection has no image to train or none to validate on: divide those that it has. Otherwise
            this is an error.

    Returns:
        The path of the classifier's file.

    Raises:
        DataError: ``data`` is not a complete collection with train and val images or is damaged, or ``out`` is the
            same folder, or holds a run with other settings or a damaged checkpoint. Or ``steer`` is given, but no
            depth is to be chosen.
        UnsupportedError: It was started in several processes, and ``steer`` is given, or the maps are means over all
            layers, and ``depth`` is given.
        SteerError: The loss is not finite.
    """
    config, out, processes = config or TrainConfig(), Path(out), ProcessGroup()
    if steer is not None or processes.count == 1:  # perhaps one of several that do not know each other
        require_one_process("train" if steer is None else "train with --confirm")
    if steer is not None and config.depth != AUTO:
        raise DataError("steering confirms a depth that was chosen; it needs the depth auto")
    storage.check_folder(out)
    if out.resolve() == Path(data).resolve():
        raise DataError(f"{out} is the folder of the collection; write the classifier to another folder")
    _tidy(out, processes)
    manifest = Manifest.read(Path(data))
    if config.depth != AUTO:
        if any(out.glob(f"depth-*/{checkpoint.FILE}")):
            raise DataError(f"{out} holds a run with depth {AUTO!r}, not {config.depth!r}; use another folder")
        return _write(fit(data, out, config, manifest, progress, hold_out), manifest)
    checkpoint.load(out, {"depth": AUTO})  # refuses the folder of a run at one depth
    candidates = []
    for depth in candidate_depths(manifest):
        folder = out / f"depth-{depth}"
        _tidy(folder, processes)
        candidates.append(fit(data, folder, replace(config, depth=depth), manifest, progress, hold_out))
        _write(candidates[-1], manifest)
    chosen, table = choose_by_accuracy(candidates, steered_levels(manifest))
    if steer is not None:
        chosen, table["steered"] = confirm_by_steering(candidates, chosen, steer)
        table["chosen"] = candidates[chosen].config.depth
    best = candidates[chosen]
    return _write(replace(best, folder=out, config=config, metrics=best.metrics | {"depths": table}), manifest)


def _tidy(folder: Path, processes: ProcessGroup) -> None:
    """Delete what killed processes left, before any process of this run writes."""
    if processes.is_first:
        storage.remove_leftovers(folder)
    processes.wait()


def _write(trained: Trained, manifest: Manifest) -> Path:
    """Write the classifier, its model card, and ``metrics.json``; return the path of the classifier."""
    processes = ProcessGroup()
    if not processes.is_first:
        processes.wait()
        return trained.folder / FILE
    path = classifier.save(trained.model, trained.folder, trained.metrics, data=_training_data(manifest))
    more = {"config": asdict(trained.config), "history": trained.history}
    storage.write_json(trained.folder / METRICS, trained.metrics | more)
    processes.wait()
    return path


def add_metrics(data: str | Path, out: str | Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """Write a trained classifier again, with more metrics in its file, its model card and ``metrics.json``.

    Args:
        data: The folder of the collection that it was trained on.
        out: Its folder.
        more: The metrics to add: ``trial`` and ``warnings``, see ``classifier.card``.

    Returns:
        All metrics, with those that were added.

    Raises:
        DataError: A file is missing or damaged.
    """
    out = Path(out)
    written = storage.read_json(out / METRICS, dict[str, Any])
    metrics = {name: value for name, value in written.items() if name not in NOT_IN_HEADER} | dict(more)
    classifier.save(classifier.load(out), out, metrics, data=_training_data(Manifest.read(Path(data))))
    storage.write_json(out / METRICS, metrics | {name: written[name] for name in NOT_IN_HEADER if name in written})
    return metrics


def _training_data(manifest: Manifest) -> dict[str, Any]:
    """The facts about the training data for the model card."""
    images, rows = sum(manifest.counts["pictures"].values()), sum(manifest.counts["rows"].values())
    every_one_twice = rows == 2 * images * len(manifest.levels)
    named: dict[str, Any] = {
        key: f"{key} {manifest.settings[key]}" for key in ("source", "inversion") if key in manifest.settings
    }
    counted = f"{images} pictures, two prompts each" if every_one_twice else f"{images} pictures"
    about = {"pictures": counted, "note": manifest.source_note}
    model = str(manifest.settings.get("model", ""))
    return {"model": model, "base_model": hub_source(model), **about, **named}
