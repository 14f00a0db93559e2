"""The training loop. It is seeded, can be resumed, and keeps the weights of the best epoch.

Source:
    Paper appendix C.9 and the authors' training settings. Unlike there, the weights of the best epoch are kept, not
    those of a later one, and the first layer is trained as if its inputs had unit size, see ``_optimizer``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from learn_to_steer.classifier import RelationClassifier
from learn_to_steer.collection import Manifest, MapDataset, progress_bar
from learn_to_steer.errors import SteerError
from learn_to_steer.training import checkpoint
from learn_to_steer.training.augmentation import Augmentation
from learn_to_steer.training.calibration import fit_temperatures, measure_calibration
from learn_to_steer.training.config import TrainConfig
from learn_to_steer.training.metrics import evaluate_split, predict_logits
from learn_to_steer.training.process_group import ProcessGroup

GAIN_SAMPLE = 512  # rows from which the spread of the inputs is measured
HELD_OUT = 4  # one image in so many is validated on, if a collection lacks a split
LEAST_RATE = 1e-6  # at which the learning rate is no longer reduced


@dataclass(frozen=True)
class Trained:
    """A classifier that was trained, with what was measured.

    Attributes:
        folder: Its folder.
        config: The settings.
        model: The classifier, on the CPU.
        metrics: The metrics, for its file and model card.
        history: The epochs.
        correct: Whether the relation is predicted, by row of the validation images.
        level: The index of the noise level, by row.
        group: The number of the image, by row.
    """

    folder: Path
    config: TrainConfig
    model: RelationClassifier
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    correct: Bool[Tensor, " rows"]
    level: Int64[Tensor, " rows"]
    group: Int64[Tensor, " rows"]


def fit(
    data: str | Path, folder: Path, config: TrainConfig, manifest: Manifest, progress: bool, hold_out: bool = False
) -> Trained:
    """Train a classifier of one depth, fit its temperatures, and measure it. A killed run is resumed.

    Args:
        data: The folder of a collection.
        folder: The folder of the checkpoint.
        config: Settings of optimiser and network.
        manifest: The manifest of the collection.
        progress: Whether to show a progress bar.
        hold_out: As in ``train``.

    Raises:
        DataError: As in ``train``.
        SteerError: The loss is not finite.
    """
    _, channels = config.read_layers(manifest)
    rows, held_out = _splits(data, manifest, channels, hold_out)
    run = TrainingRun(config, manifest, rows, held_out, folder)
    total = config.epochs * run.batches
    task = "training" if config.depth is None else f"training at depth {config.depth}"
    progress = progress and run.processes.is_first
    with progress_bar(task, total, "batches") if progress else nullcontext(lambda _: None) as count:
        count(len(run.history) * run.batches)
        while not run.finished:
            run.train_epoch(count)
    run.model.load_state_dict(run.best)
    logits = predict_logits(run.model, held_out, torch.arange(len(held_out)))
    metrics: dict[str, Any] = {"best_epoch": run.best_epoch, "val": evaluate_split(run.model, held_out, logits)}
    facts = (held_out.label, held_out.level, held_out.group)
    temperatures = fit_temperatures(logits["both"], *facts, len(manifest.levels))
    correct = logits["both"].argmax(dim=1) == held_out.label
    measured, split = held_out, "val"
    if manifest.counts["rows"].get("test"):
        measured, split = MapDataset.open(data, "test", channels=channels), "test"
        logits = predict_logits(run.model, measured, torch.arange(len(measured)))
        metrics["test"] = evaluate_split(run.model, measured, logits)
    calibration = measure_calibration(run.model, measured, temperatures, logits["both"])
    metrics["calibration"] = {"split": split} | calibration
    run.model.config = replace(run.model.config, temperatures=temperatures)
    return Trained(folder, config, run.model.cpu(), metrics, run.history, correct, held_out.level, held_out.group)


def _splits(data: str | Path, manifest: Manifest, channels: list[int], hold_out: bool) -> tuple[MapDataset, MapDataset]:
    """The rows to train on, and those to validate on."""
    images = manifest.counts.get("pictures", {})
    if not hold_out or (images.get("train") and images.get("val")):
        rows, held_out = (MapDataset.open(data, split, channels=channels) for split in ("train", "val"))
        return rows, held_out
    only = MapDataset.open(data, max(images, key=lambda split: images[split]), channels=channels)
    number = {group: place for place, group in enumerate(sorted(set(only.group.tolist())))}
    held = torch.tensor([number[group] % HELD_OUT == 0 for group in only.group.tolist()])
    return only.some((~held).nonzero().flatten()), only.some(held.nonzero().flatten())


class TrainingRun:
    """The state of a training run; continues from the checkpoint if the folder has one.

    In several processes (``accelerate launch``), each has its part of the rows of a batch, which is as many times as
    large as in one, and all stop after the same epoch. The first one writes.

    Args:
        config: Settings of optimiser and network.
        manifest: The manifest of the collection.
        rows: The rows to train on.
        held_out: The rows to validate on.
        out: The folder of the checkpoint.
    """

    def __init__(
        self, config: TrainConfig, manifest: Manifest, rows: MapDataset, held_out: MapDataset, out: Path
    ) -> None:
        self.config, self.rows, self.held_out, self.out = config, rows, held_out, out
        # Without a depth as in 0.1.0, which had none, so that its runs can be resumed.
        self._identity = {k: v for k, v in asdict(config).items() if k != "epochs" and (k, v) != ("depth", None)}
        self._identity["data"] = f"{manifest.fingerprint} {manifest.weights} {manifest.settings} {manifest.counts}"
        # Validation uses the same kind of prompts as training; the finished model is evaluated on all rows.
        self._train_index, self._val_index = (_usable_rows(split, config.prompts) for split in (rows, held_out))
        self._augment = Augmentation(manifest.classes) if config.augment else None
        self._weights, self._val_weights = (
            balancing_weights(split.label[index], split.prompted[index], len(manifest.classes), augment)
            if config.prompts == "balanced"
            else torch.ones(len(manifest.classes), len(manifest.classes))
            for split, index, augment in (
                (rows, self._train_index, self._augment),
                (held_out, self._val_index, None),
            )
        )
        self.processes = ProcessGroup()
        if self.processes.count > 1:
            self._identity["processes"] = self.processes.count
        self._accelerator = self.processes.accelerator
        torch.manual_seed(config.seed)
        model = RelationClassifier(config.classifier(manifest))
        self._wrapped, optimizer = self._accelerator.prepare(model, _optimizer(model, config, rows, self._train_index))
        self.model: RelationClassifier = self.processes.plain(self._wrapped)
        self._optimizer: torch.optim.Optimizer = optimizer
        self._plateau = ReduceLROnPlateau(
            optimizer.optimizer,
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            threshold=0.0,
            min_lr=[group["lr"] * LEAST_RATE / config.rate for group in optimizer.param_groups],
        )
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self._resume()

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self._train_index) // (self.config.batch * self.processes.count))

    @property
    def best_epoch(self) -> int:
        """The number of the epoch with the lowest validation loss; the first of several. Epochs count from 0."""
        return min(range(len(self.history)), key=lambda epoch: self.history[epoch]["val_loss"])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the validation loss has not improved for ``patience`` epochs."""
        done = len(self.history)
        return done >= self.config.epochs or (done > 0 and done - 1 - self.best_epoch >= self.config.patience)

    def train_epoch(self, count: Callable[[int], None]) -> None:
        """Train for one epoch, validate, keep the weights if they are the best so far, and write the checkpoint.

        Args:
            count: Called with 1 after every batch.

        Raises:
            SteerError: The loss is not finite.
        """
        number = len(self.history)
        # Order, augmentation and dropout depend only on seed and epoch, so that a resumed run gives the same result.
        generator = torch.Generator().manual_seed(self.config.seed * 100_003 + number)
        torch.manual_seed(self.config.seed * 100_003 + number + self.processes.number)
        self._wrapped.train()
        losses = []
        batches = self.rows.batches(self._train_index, self.config.batch, generator, self.processes.share)
        for size in self._sizes():
            losses.append(self._train_batch(next(batches, None), size, generator))
            count(1)
        first, step = self.processes.share
        logits = self.processes.joined(predict_logits(self.model, self.held_out, self._val_index[first::step])["both"])
        label, prompted = self.held_out.label[self._val_index], self.held_out.prompted[self._val_index]
        entry = {
            "train_loss": self.processes.mean(losses),
            "val_loss": float(_loss(logits, label, self._val_weights[label, prompted])),
            "val_accuracy": float((logits.argmax(dim=1) == label).double().mean()),
            "rate": float(self._optimizer.param_groups[-1]["lr"]),
        }
        entry = self.processes.agreed(entry)
        if not math.isfinite(entry["train_loss"] + entry["val_loss"]):
            raise SteerError(
                f"training diverged in epoch {number}; start again with a smaller rate than {self.config.rate}"
            )
        self._plateau.step(entry["val_loss"])
        self.history.append(entry)
        if self.best_epoch == number:
            self.best = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}
        self._save()

    def _sizes(self) -> list[int]:
        """The number of rows of every batch of an epoch, those of all processes together."""
        rows, size = len(self._train_index), self.config.batch * self.processes.count
        return [min(size, rows - start) for start in range(0, rows, size)]

    def _train_batch(self, batch: tuple[Tensor, Tensor] | None, size: int, generator: torch.Generator) -> float:
        """Train on this process's rows of a batch, and return their part of the loss.

        Args:
            batch: The indices of the rows and their maps. None: the batch is too small for all processes; this one
                only takes part in the exchange of gradients.
            size: The number of rows of all processes.
            generator: Determines the augmentation.
        """
        count, device = self.processes.count, self._accelerator.device
        index, stored = batch or (self._train_index[:1], self.rows.maps(self._train_index[:1]))
        maps, label, prompted = stored.float(), self.rows.label[index], self.rows.prompted[index]
        if self._augment:
            share = self.processes.share if batch else (0, size)
            maps, label, prompted = self._augment(maps, label, prompted, generator, size, share)
        predicted = self._wrapped(maps.to(device), self.rows.level[index].to(device))
        loss = _loss(predicted, label.to(device), self._weights[label, prompted].to(device))
        if count > 1:  # so that the mean over the processes is the mean over the rows
            loss = loss * (len(index) * count / size if batch else 0.0)
        self._optimizer.zero_grad()
        self._accelerator.backward(loss)
        self._optimizer.step()
        return float(loss.detach())

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        state = {
            "identity": self._identity,
            "history": self.history,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
            "plateau": self._plateau.state_dict(),
        }
        checkpoint.save(self.out, state)

    def _resume(self) -> None:
        state = checkpoint.load(self.out, self._identity)
        if state is None:
            return
        parameters = [parameter.detach() for group in self._optimizer.param_groups for parameter in group["params"]]
        moments = [{"step": torch.zeros(()), "exp_avg": values, "exp_avg_sq": values} for values in parameters]
        present = {
            "model": self.model.state_dict(),
            "best": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict() | {"state": dict(enumerate(moments))},
            "plateau": self._plateau.state_dict(),
        }
        checkpoint.require_fit(self.out / checkpoint.FILE, state, present)
        self.history, self.best = state["history"], state["best"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._plateau.load_state_dict(state["plateau"])


def balancing_weights(
    label: Int64[Tensor, " rows"], prompted: Int64[Tensor, " rows"], classes: int, augment: Augmentation | None
) -> Float[Tensor, "classes classes"]:
    """Return weights of the loss that make true and prompted relation statistically independent.

    Args:
        label: Indices of the true relations.
        prompted: Indices of the prompted relations.
        classes: The number of relations.
        augment: The augmentation, which changes how often each combination occurs; None: there is none.

    Returns:
        The weight of a row by ``label`` and ``prompted``; 0 for combinations that do not occur.
    """
    counts = torch.zeros(classes, classes).index_put_((label, prompted), torch.ones(len(label)), accumulate=True)
    joint = (augment.expected_counts(counts) if augment else counts) / len(label)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.where(joint > 0, independent / joint.clamp_min(1e-12), 0.0)


def _loss(predicted: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    return (functional.cross_entropy(predicted, label, reduction="none") * weights).mean()


def _usable_rows(rows: MapDataset, prompts: str) -> Int64[Tensor, " used"]:
    """Indices of the rows with the kind of prompts to train on."""
    return (rows.label == rows.prompted).nonzero().flatten() if prompts == "true" else torch.arange(len(rows))


def _optimizer(
    model: RelationClassifier, config: TrainConfig, rows: MapDataset, index: Tensor
) -> torch.optim.Optimizer:
    """AdamW, with the first layer trained as if its inputs had unit size.

    Adam changes every weight by about the learning rate, however small its input is. The values of a map sum to one,
    so each is around 1/256, and the first layer would need tens of thousands of steps until the maps matter beside the
    position embeddings. Here its initial weights and their learning rate are divided by the standard deviation of the
    maps, and their weight decay is multiplied by it. This equals scaling the inputs to unit size, but the network
    itself needs no scale.
    """
    sampled = index[torch.linspace(0, len(index) - 1, min(len(index), GAIN_SAMPLE)).long()]
    gain = 1 / max(float(rows.maps(sampled).float().std()), 1e-6)
    first: Any = model.object_extractor if config.extractor == "attention" else model.relation_classifier
    weight: nn.Parameter = (first.input_projection if config.extractor == "attention" else first.projection).weight
    with torch.no_grad():
        weight.mul_(gain)
    others = [parameter for parameter in model.parameters() if parameter is not weight]
    groups: list[dict[str, Any]] = [
        {"params": [weight], "lr": config.rate * gain, "weight_decay": config.weight_decay / gain},
        {"params": others},
    ]
    return torch.optim.AdamW(groups, lr=config.rate, weight_decay=config.weight_decay)
