"""Training on synthetic maps: blobs placed by the label, with or without a trace of the prompted word."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn import functional

from learn_to_steer import classifier, storage
from learn_to_steer.collection import Manifest, MapDataset
from learn_to_steer.collection.shards import totals, write_shard
from learn_to_steer.errors import DataError, SteerError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL, OPPOSITE
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.training import TrainConfig, train
from learn_to_steer.training.augmentation import Augmentation
from learn_to_steer.training.metrics import evaluate_split, predict_logits
from learn_to_steer.training.trainer import TrainingRun, balancing_weights

CLASSES = (*BASIC, NEUTRAL)
LAYOUT = Layout("sd", (MapLayer("a.attn2", 2, 0), MapLayer("b.attn2", 2, 1)), side=8)
OFFSETS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0), NEUTRAL: (0, 0)}
# A smaller network and a faster rate than the defaults: seconds, not minutes.
CONFIG = TrainConfig(epochs=15, rate=2e-3, width=32, hidden=32, head_hidden=32, layers=1, head_layers=1, dropout=0.0)


def _blobs(label, generator, leak=None):
    """Maps (2, 4, 8, 8): a bump per object; the prompted word, if it leaks, dims one row of every map."""
    dx, dy = OFFSETS[CLASSES[label]]
    centre = 2.5 + 2 * torch.rand(2, generator=generator)
    axis = torch.arange(8.0)
    objects = []
    for sign in (1, -1):
        x, y = centre[0] + sign * 1.5 * dx, centre[1] + sign * 1.5 * dy
        objects.append(torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / 3))
    maps = torch.stack(objects)[:, None] + 0.05 * torch.rand(2, 4, 8, 8, generator=generator)
    if leak is not None:
        maps[:, leak % 4] += 4.0 * (leak + 1) * (torch.arange(64.0).reshape(8, 8) == leak)
    return maps / maps.sum((-2, -1), keepdim=True)


def _collection(folder, leaky=False, seed=0, readable=True):
    """A finished collection of such maps; with ``readable`` false the blobs say nothing of the label."""
    generator = torch.Generator().manual_seed(seed)
    shards = {"train-0000": range(300), "val-0000": range(300, 360), "test-0000": range(360, 420)}
    for shard, groups in shards.items():
        maps, rows = [], []
        for group in groups:
            label = group % len(CLASSES)
            other = (label + 1 + int(torch.randint(len(CLASSES) - 1, (), generator=generator))) % len(CLASSES)
            for kind, prompted in (("true", label), ("wrong", other)):
                shown = label if readable else int(torch.randint(len(CLASSES), (), generator=generator))
                maps.append(_blobs(shown, generator, prompted if leaky else None))
                rows.append({"group": group, "kind": kind, "label": label, "prompted": prompted, "level": group % 2})
        tensors = {key: torch.tensor([row[key] for row in rows]) for key in ("label", "prompted", "level", "group")}
        write_shard(folder, shard, tensors | {"maps": torch.stack(maps).half()}, rows, [])
    manifest = Manifest(
        settings={"seed": seed, "leaky": leaky},
        weights="0",
        layout=LAYOUT.as_dict(),
        fingerprint=LAYOUT.fingerprint,
        classes=list(CLASSES),
        levels=[0.9, 0.6],
        source_note="synthetic",
        shards=list(shards),
        versions={},
        counts=totals(folder, list(shards)),
        complete=True,
    )
    manifest.write(folder)
    return folder


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return _collection(tmp_path_factory.mktemp("blobs"))


def _metrics(out):
    return json.loads((out / "metrics.json").read_text())


def test_blobs_are_learned_and_the_best_weights_kept(blobs, tmp_path):
    path = train(blobs, tmp_path, CONFIG, progress=False)
    metrics = _metrics(tmp_path)
    history = [epoch["val_loss"] for epoch in metrics["history"]]
    assert metrics["best_epoch"] == history.index(min(history))
    test = metrics["test"]
    assert test["accuracy"] > 0.9
    low, high = test["accuracy_interval"]
    assert low <= test["accuracy"] <= high
    assert set(test["per_relation"]) == set(CLASSES) and set(test["per_level"]) == {"0.9000", "0.6000"}
    assert sum(sum(line.values()) for line in test["confusion"].values()) == test["rows"] == 120
    right = sum(test["confusion"][name][name] for name in CLASSES)
    assert right / 120 == pytest.approx(test["accuracy"])
    model = classifier.load(path)
    model.layout.require(LAYOUT)
    assert model.config.levels == (0.9, 0.6)
    # The stored file scores as the metrics say: it is the best epoch's, not the last one's.
    assert evaluate_split(model, MapDataset.open(blobs, "test"))["accuracy"] == pytest.approx(
        test["accuracy"], abs=0.02
    )


def test_a_diverging_run_says_so(blobs, tmp_path):
    rows, held_out = (MapDataset.open(blobs, split) for split in ("train", "val"))
    run = TrainingRun(CONFIG, Manifest.read(blobs), rows, held_out, tmp_path)
    with torch.no_grad():
        next(run.model.parameters()).fill_(math.inf)
    with pytest.raises(SteerError, match=r"diverged in epoch 0; start again with a smaller rate than 0\.002"):
        run.train_epoch(lambda _: None)
    assert not list(tmp_path.iterdir())  # nothing to go on from


def test_a_killed_run_goes_on_bit_for_bit(blobs, tmp_path):
    config = replace(CONFIG, epochs=3, dropout=0.1)
    whole = train(blobs, tmp_path / "whole", config, progress=False)
    train(blobs, tmp_path / "cut", replace(config, epochs=1), progress=False)
    resumed = train(blobs, tmp_path / "cut", config, progress=False)
    (weights, header), (expected, expected_header) = storage.load_tensors(resumed), storage.load_tensors(whole)
    assert header == expected_header
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    with pytest.raises(DataError, match=r"rate 0.002, not 0.1"):
        train(blobs, tmp_path / "cut", replace(config, rate=0.1), progress=False)
    (tmp_path / "cut" / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(DataError, match="delete it"):
        train(blobs, tmp_path / "cut", config, progress=False)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """Data and folder of a run that has nothing to learn but the training rows by heart."""
    data = _collection(tmp_path_factory.mktemp("unreadable"), readable=False)
    out = tmp_path_factory.mktemp("overfitted")
    train(data, out, replace(CONFIG, epochs=30, patience=2, augment=False, plateau_patience=0), progress=False)
    return data, out


def test_training_stops_when_validation_does_not_improve(overfitted):
    metrics = _metrics(overfitted[1])
    losses = [epoch["val_loss"] for epoch in metrics["history"]]
    assert len(losses) < 30
    assert metrics["best_epoch"] == len(losses) - 3 == losses.index(min(losses))


def test_the_weights_are_those_of_the_best_epoch(overfitted):
    data, out = overfitted
    metrics, rows = _metrics(out), MapDataset.open(data, "val")
    logits = predict_logits(classifier.load(out), rows, torch.arange(len(rows)))["both"]
    loss = float(functional.cross_entropy(logits, rows.label))
    best, last = (metrics["history"][epoch]["val_loss"] for epoch in (metrics["best_epoch"], -1))
    assert abs(loss - best) < abs(last - best) / 4


def test_the_rate_falls_when_validation_does_not_improve(overfitted):
    history = _metrics(overfitted[1])["history"]
    rate, best = CONFIG.rate, math.inf
    for epoch in history:
        assert epoch["rate"] == pytest.approx(rate)
        rate *= 1.0 if epoch["val_loss"] < best else CONFIG.plateau_factor
        best = min(best, epoch["val_loss"])
    assert rate < CONFIG.rate


def test_the_probe_reports_a_leak(tmp_path):
    # The blobs say nothing, the words' trace says everything: only leakage can be learned from true prompts.
    data = _collection(tmp_path / "data", leaky=True, readable=False)
    config = replace(CONFIG, augment=False, prompts="true")
    train(data, tmp_path / "true", config, progress=False)
    leak = _metrics(tmp_path / "true")["test"]["leakage"]
    assert leak["both"]["true_prompts"] > 0.9
    assert leak["both"]["wrong_prompts"] < 0.1
    assert leak["both"]["names_prompted_word"] > 0.9
    assert leak["both"]["by_chance"] < 0.3
    assert leak["subject"]["names_prompted_word"] > 0.5 or leak["object"]["names_prompted_word"] > 0.5


def test_both_prompts_close_the_leak(tmp_path):
    data = _collection(tmp_path / "data", leaky=True)
    train(data, tmp_path / "both", replace(CONFIG, augment=False), progress=False)
    leak = _metrics(tmp_path / "both")["test"]["leakage"]["both"]
    assert leak["wrong_prompts"] > 0.85
    assert leak["names_prompted_word"] < 0.1


def test_augmented_maps_show_what_their_label_says():
    augment = Augmentation(CLASSES)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(5).repeat(40)
    maps = torch.stack([_blobs(int(one), generator) for one in label])
    changed, relabelled, prompted = augment(maps, label, label, generator)
    # Exchanged objects take their words along, mirrored ones do not.
    assert {int(one) for one in prompted[label == 2]} == {2, 3}
    assert not torch.equal(prompted, relabelled)
    assert {int(one) for one in relabelled[label == 0]} == {0, 1} and (relabelled[label == 4] == 4).all()
    ramp = torch.arange(8.0)
    centres = {axis: (changed.sum(3 if axis == "x" else 4) * ramp).sum(-1).mean(-1) for axis in "xy"}
    for number, name in enumerate(CLASSES[:4]):
        rows = relabelled == number
        for way, sign in zip("xy", OFFSETS[name], strict=True):
            if sign:
                assert ((centres[way][rows, 0] - centres[way][rows, 1]) * sign > 0).all()


@pytest.mark.parametrize("augmented", [False, True])
def test_balanced_rows_say_nothing_by_their_word(augmented):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(5, (40_000,), generator=generator)
    wrong = (label + torch.randint(1, 5, (40_000,), generator=generator)) % 5
    prompted = torch.where(torch.rand(40_000, generator=generator) < 0.5, label, wrong)
    augment = Augmentation(CLASSES) if augmented else None
    weights = balancing_weights(label, prompted, 5, augment)
    if augment:
        _, label, prompted = augment(torch.zeros(40_000, 2, 1, 1, 1), label, prompted, generator)
    share = torch.zeros(5, 5).index_put_((label, prompted), weights[label, prompted], accumulate=True) / 40_000
    torch.testing.assert_close(share, torch.full((5, 5), 0.04), rtol=0.08, atol=0)
    assert weights.max() > 1.2  # unweighted they are far from it


def test_balanced_training_reads_no_word(tmp_path):
    data = _collection(tmp_path / "data", leaky=True)
    metrics = {}
    for prompts in ("both", "balanced"):
        train(data, tmp_path / prompts, replace(CONFIG, augment=False, prompts=prompts), progress=False)
        metrics[prompts] = _metrics(tmp_path / prompts)["test"]["leakage"]["both"]
    assert metrics["balanced"]["names_prompted_word"] <= metrics["both"]["names_prompted_word"] + 0.02
    assert metrics["balanced"]["wrong_prompts"] > 0.85


def test_augmentation_knows_the_diagonals():
    classes = (*BASIC, *DIAGONAL, NEUTRAL)
    augment = Augmentation(classes)
    names = [[classes[int(i)] for i in table] for table in (augment._exchanged, augment._flipped_x, augment._flipped_y)]
    for name, swapped, sideways, upside in zip(classes, *names, strict=True):
        assert swapped == OPPOSITE[name]
        assert sideways == name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert upside == name.replace("above", "?").replace("below", "above").replace("?", "below")


def test_a_collection_without_validation_pictures_is_refused(blobs, tmp_path):
    manifest = Manifest.read(blobs)
    counts = {**manifest.counts, "rows": {"train": 600}}
    replace(manifest, counts=counts).write(tmp_path)
    (tmp_path / "shards").symlink_to(blobs / "shards")
    with pytest.raises(DataError, match="no val images"):
        train(tmp_path, tmp_path / "out", CONFIG, progress=False)


def test_the_first_layer_is_trained_as_if_its_inputs_had_unit_size(blobs, tmp_path):
    rows = MapDataset.open(blobs, "train")
    run = TrainingRun(CONFIG, Manifest.read(blobs), rows, rows, tmp_path)
    first, others = run._optimizer.param_groups
    spread = float(rows.maps(range(len(rows))).float().std())
    assert first["lr"] == pytest.approx(CONFIG.rate / spread, rel=0.1)
    assert first["weight_decay"] * first["lr"] == pytest.approx(others["weight_decay"] * others["lr"])
    assert asdict(run.model.config)["channels"] == LAYOUT.channels
