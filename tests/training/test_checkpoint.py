"""The checkpoint: every flipped bit is refused, as is every field of another type; equal runs give equal bytes."""

from __future__ import annotations

import io
import lzma
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.training import TrainConfig, checkpoint, train

EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1"
DATA = EDITION1 / "collection"
CONFIG = TrainConfig(epochs=2, width=4, layers=1, heads=1, hidden=4, head_layers=1, head_heads=1, head_hidden=4)
REMEDY = "delete it, and training starts again from the first epoch"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    train(DATA, out, CONFIG, progress=False)
    return out


@pytest.fixture
def copy(trained, tmp_path):
    (tmp_path / checkpoint.FILE).write_bytes((trained / checkpoint.FILE).read_bytes())
    return tmp_path / checkpoint.FILE


def test_equal_runs_give_equal_bytes_also_when_one_was_stopped_and_killed(trained, tmp_path):
    train(DATA, tmp_path, replace(CONFIG, epochs=1), progress=False)
    for name in ("checkpoint.pt", "relation_classifier.safetensors", "config.json"):
        (tmp_path / f".{name}.0123456789ab.tmp").write_bytes(b"half")
    train(DATA, tmp_path, CONFIG, progress=False)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files == {path.name: path.read_bytes() for path in trained.iterdir()}
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_flipped_bits_are_refused_and_the_remedy_works(trained, copy):
    whole = copy.read_bytes()
    for place in [*range(0, len(whole), len(whole) // 150), *range(len(whole) - 95, len(whole))]:
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(DataError, match=REMEDY):
            checkpoint.read(copy)
    with pytest.raises(DataError, match=REMEDY):
        train(DATA, copy.parent, CONFIG, progress=False)
    copy.unlink()
    train(DATA, copy.parent, CONFIG, progress=False)
    assert copy.read_bytes() == whole == (trained / checkpoint.FILE).read_bytes()


def test_a_flipped_bit_in_a_checkpoint_without_a_digest_is_refused(tmp_path):
    path = tmp_path / checkpoint.FILE
    whole = lzma.decompress((EDITION1 / "classifier" / "checkpoint.pt.xz").read_bytes())
    path.write_bytes(whole)
    before = checkpoint.read(path)
    weights = before["best"]["object_extractor.input_projection.weight"].numpy().tobytes()
    place = whole.index(weights) + 3
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
    with pytest.raises(DataError, match=REMEDY):
        checkpoint.read(path)


def test_spoilt_files_are_refused(copy, spoil):
    identity = checkpoint.read(copy)["identity"]
    for how in spoil(copy):
        if how == "a loop of links":
            continue
        with pytest.raises(DataError):
            checkpoint.load(copy.parent, identity)


def test_a_field_of_another_type_is_refused(copy, with_wrong_values):
    state = checkpoint.read(copy)
    optimizer, weights = state["optimizer"], next(iter(state["model"]))
    groups, moments = optimizer["param_groups"], optimizer["state"]
    small = state | {"model": {}, "best": {}, "optimizer": {}}
    history = [(f"history{label}", small | value) for label, value in with_wrong_values({"history": state["history"]})]
    for name in ("model", "best", "optimizer", "plateau", "history", "identity"):
        history.append((name, {key: value for key, value in small.items() if key != name}))
        history += [(name, small | {name: value}) for value in (None, 7, [], "text", torch.zeros(3))]
    for label, value in history:
        if label.endswith(("=7", "=1.5", f"={2**70}", "rate=-1")):
            continue  # numbers as good as others
        checkpoint.save(copy.parent, value)
        with pytest.raises(DataError, match=REMEDY):
            checkpoint.read(copy)
            pytest.fail(label)
    wrong = [(label, {"plateau": value}) for label, value in with_wrong_values(state["plateau"])]
    shown = {key: groups[0][key] for key in ("lr", "weight_decay", "eps", "params")}
    wrong += [
        (label, {"optimizer": optimizer | {"param_groups": [groups[0] | value, groups[1]]}})
        for label, value in with_wrong_values(shown)
    ]
    wrong += [
        (f"{name}.{weights}", {name: state[name] | {weights: value}})
        for name in ("model", "best")
        for value in (None, torch.zeros(3), state[name][weights].double(), state[name][weights] * float("nan"))
    ]
    wrong += [
        ("moments", {"optimizer": optimizer | {"state": moments | {0: value}}})
        for value in (None, {}, moments[0] | {"exp_avg": torch.zeros(1)}, moments[0] | {"step": None})
    ]
    checkpoint.require_fit(copy, state, state)
    for label, value in wrong:
        if label.endswith(("=7", "=1.5", f"={2**70}", "=-1")) or label.startswith((".mode_worse=", "._last_lr=")):
            continue
        with pytest.raises(DataError, match=REMEDY):
            checkpoint.require_fit(copy, value, {name: state[name] for name in value})
            pytest.fail(label)


def test_a_checkpoint_that_does_not_fit_is_refused_by_training(copy):
    state = checkpoint.read(copy)
    checkpoint.save(copy.parent, state | {"plateau": state["plateau"] | {"best": "low"}})
    with pytest.raises(DataError, match="plateau does not fit this run"):
        train(DATA, copy.parent, replace(CONFIG, epochs=3), progress=False)


def test_another_object_in_the_file_is_refused(copy):
    for value in ([1], "text", {"identity": {}}, torch.zeros(2)):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        storage.write_atomic(copy, buffer.getvalue())
        with pytest.raises(DataError, match=REMEDY):
            checkpoint.read(copy)


def test_a_classifier_is_not_written_into_the_collection(trained, tmp_path):
    folder = shutil.copytree(EDITION1 / "collection", tmp_path / "maps")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(DataError, match="is the folder of the collection; write"):
        train(folder, tmp_path / "link", progress=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
