"""Files that version 0.1 wrote load: a collection, a classifier, a checkpoint and a --config file."""

import json
import lzma
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from learn_to_steer.classifier import load
from learn_to_steer.cli import main
from learn_to_steer.collection import CollectConfig, Manifest, MapDataset, verify
from learn_to_steer.training import TrainConfig, train
from learn_to_steer.training.metrics import predict_logits

FILES = Path(__file__).parents[1] / "fixtures" / "edition1"
COLLECT = CollectConfig("tiny", "emoji", limit=6, side=64, levels=(0.9,), quality=1e9, map_side=4, reduce="mean")
TRAIN = TrainConfig(
    epochs=2, width=4, layers=1, heads=1, hidden=4, head_layers=1, head_heads=1, head_hidden=4
)  # as in make_files.py


@pytest.fixture
def metrics():
    return json.loads((FILES / "classifier" / "metrics.json").read_text())


def test_a_collection_is_whole_and_can_be_gone_on_with():
    manifest = Manifest.read(FILES / "collection")
    assert verify(FILES / "collection") == manifest.counts
    assert manifest.settings == COLLECT.settings()
    rows = MapDataset.open(FILES / "collection", "train")
    assert rows.maps(range(len(rows))).shape == (10, 2, 1, 4, 4)
    assert set(rows.level.tolist()) == {0} and set(rows.group.tolist()) == set(range(5))


def test_a_classifier_predicts_as_it_did(metrics):
    classifier = load(FILES / "classifier")
    rows = MapDataset.open(FILES / "collection", "val")
    logits = predict_logits(classifier, rows, torch.arange(len(rows)))["both"]
    loss = float(functional.cross_entropy(logits, rows.label))
    assert loss == pytest.approx(metrics["history"][metrics["best_epoch"]]["val_loss"], abs=2e-3)  # fp16 weights
    assert classifier.config.classes == ("above", "below", "left of", "right of", "is")
    assert classifier.layout.fingerprint == Manifest.read(FILES / "collection").fingerprint


def test_a_training_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch, metrics):
    checkpoint = lzma.decompress((FILES / "classifier" / "checkpoint.pt.xz").read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(checkpoint)
    sized = TrainConfig.classifier
    monkeypatch.setattr(TrainConfig, "classifier", lambda self, m: replace(sized(self, m), fc_widths=(8, 4)))
    train(FILES / "collection", tmp_path, replace(TRAIN, epochs=3), progress=False)
    history = json.loads((tmp_path / "metrics.json").read_text())["history"]
    assert len(history) == 3 and history[:2] == metrics["history"]


def test_a_config_file_sets_the_options_it_names(tmp_path):
    data = shutil.copytree(FILES / "collection", tmp_path / "collection")
    arguments = ["train", "--config", str(FILES / "train.yaml"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    named = {"epochs": 1, "batch": 8, "rate": 0.002, "patience": 3, "prompts": "balanced", "augment": False}
    assert written.items() >= (named | {"width": 8, "dropout": 0.2, "seed": 5}).items()
