"""Collection on a tiny random pipeline: what a shard holds, resuming after a kill, and verify."""

import json
import shutil
import sys
import weakref
from dataclasses import replace

import pytest
import torch

from learn_to_steer import storage
from learn_to_steer.classifier import load
from learn_to_steer.collection import CollectConfig, MapDataset, collect, verify
from learn_to_steer.collection.contrastive_prompts import prompt_pair
from learn_to_steer.collection.noise_levels import default_levels, kept_times
from learn_to_steer.errors import DataError, InversionError, UnknownNameError
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.geometry import BASIC, NEUTRAL
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import AttentionMaps
from learn_to_steer.sources import SourceRequest
from learn_to_steer.training import TrainConfig, train
from learn_to_steer_emoji.source import EMOJI

CLASSES = (*BASIC, NEUTRAL)
# Picture 5 is val: with six of them there are two shards.
CONFIG = CollectConfig("tiny", "emoji", limit=6, side=64, levels=(0.9, 0.5), quality=1e9, batch=3)


def _collect(pipe, folder, config=CONFIG):
    return collect(pipe, folder, config, progress=False)


def test_shards_hold_both_prompts_of_every_picture(tiny_sd, tmp_path):
    manifest = _collect(tiny_sd, tmp_path)
    assert manifest.shards == ["train-0000", "val-0000"]
    assert manifest.counts == {
        "rows": {"train": 20, "val": 4},
        "pictures": {"train": 5, "val": 1},
        "dropped": {},
    }
    assert verify(tmp_path) == manifest.counts
    rows = MapDataset.open(tmp_path, "train")
    lines = storage.read_jsonl(tmp_path / "shards" / "train-0000.jsonl")
    pictures = list(EMOJI.images(SourceRequest(6, 0, 64)))
    assert len(rows) == len(lines) == 20
    for number, line in enumerate(lines):
        picture = pictures[line["group"]]
        assert [line["subject"], line["relation"], line["object"]] == [
            picture.subject,
            picture.predicate,
            picture.object,
        ]
        assert manifest.classes[int(rows.label[number])] == picture.predicate
        assert manifest.classes[int(rows.prompted[number])] == line["prompted"]
        assert (line["kind"] == "true") == (line["prompted"] == picture.predicate)
    maps = rows.maps(range(20)).float()
    assert maps.shape == (20, 2, 14, 16, 16)
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(20, 2, 14), atol=2e-3, rtol=0)
    assert not torch.equal(maps[0], maps[1])
    for level, noise_level in enumerate(manifest.levels):
        assert abs(noise_level - CONFIG.levels[level]) < 2e-3


@pytest.mark.parametrize(("reduce", "channels"), [("layer-mean", 7), ("mean", 1)])
def test_means_over_heads_are_kept_on_request(tiny_sd, tmp_path, reduce, channels):
    every = _collect(tiny_sd, tmp_path / "every")
    few = _collect(tiny_sd, tmp_path / "few", replace(CONFIG, reduce=reduce))
    heads = MapDataset.open(tmp_path / "every", "train").maps(range(20)).float()
    kept = MapDataset.open(tmp_path / "few", "train").maps(range(20)).float()
    assert kept.shape == (20, 2, channels, 16, 16)
    layers = [layer["heads"] for layer in every.layout["layers"]]
    means = torch.stack([part.mean(2) for part in heads.split(layers, dim=2)], dim=2)
    torch.testing.assert_close(
        kept, means if reduce == "layer-mean" else heads.mean(2, keepdim=True), atol=1e-5, rtol=0
    )
    assert few.fingerprint != every.fingerprint
    config = TrainConfig(epochs=1, width=16, hidden=16, head_hidden=16)
    objective = Learned(load(train(tmp_path / "few", tmp_path / "classifier", config, progress=False)))
    objective.check(FAMILY.layout(tiny_sd.unet))
    seen = AttentionMaps(tuple(torch.rand(1, 2, n, 8, 8) for n in layers))
    assert objective(seen, [[ObjectPair(0, "left of", 1)]], StepInfo(0.9, 0)).loss.isfinite().all()


def test_a_disk_that_is_too_small_is_noticed_before_the_start(tiny_sd, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 2**15))
    with pytest.raises(DataError, match="--reduce layer-mean"):
        _collect(tiny_sd, tmp_path)
    assert not list(tmp_path.glob("shards/*"))


def test_maps_do_not_depend_on_the_batch(tiny_sd, tmp_path):
    _collect(tiny_sd, tmp_path / "three")
    _collect(tiny_sd, tmp_path / "one", replace(CONFIG, batch=1))
    three, one = (MapDataset.open(tmp_path / name, "train").maps(range(20)).float() for name in ("three", "one"))
    torch.testing.assert_close(three, one, atol=1e-5, rtol=1e-2)


def test_resuming_makes_the_same_bytes(tiny_sd, tmp_path):
    first = _collect(tiny_sd, tmp_path)
    place = tmp_path / "shards"
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    kept = (place / "val-0000.safetensors").stat().st_mtime_ns
    # As a kill would leave it: tensors half written under a temporary name, the shard not marked as done.
    (place / ".train-0000.safetensors.0123456789ab.tmp").write_bytes(b"half")
    (place / "train-0000.json").unlink()
    (place / "train-0000.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError):
        verify(tmp_path)
    assert _collect(tiny_sd, tmp_path) == first
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert (place / "val-0000.safetensors").stat().st_mtime_ns == kept


def test_an_unfinished_collection_is_not_read(tiny_sd, tmp_path):
    manifest = _collect(tiny_sd, tmp_path)
    replace(manifest, complete=False, counts={}).write(tmp_path)
    for read in (verify, lambda folder: MapDataset.open(folder, "train")):
        with pytest.raises(DataError, match="not complete"):
            read(tmp_path)


def test_another_collection_in_the_same_folder_is_refused(tiny_sd, tmp_path):
    _collect(tiny_sd, tmp_path)
    with pytest.raises(DataError, match="seed 0, not 1"):
        _collect(tiny_sd, tmp_path, replace(CONFIG, seed=1))
    with torch.no_grad():
        tiny_sd.unet.conv_in.weight.mul_(2)
    with pytest.raises(DataError, match="another model"):
        _collect(tiny_sd, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        _collect(tiny_sd, tmp_path / "other")


@pytest.mark.parametrize("name", ["train-0000.safetensors", "val-0000.jsonl"])
def test_verify_sees_one_flipped_byte(tiny_sd, tmp_path, name):
    _collect(tiny_sd, tmp_path)
    path = tmp_path / "shards" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=name):
        verify(tmp_path)


def test_verify_sees_a_manifest_that_was_changed(tiny_sd, tmp_path):
    _collect(tiny_sd, tmp_path)
    path = tmp_path / "manifest.json"
    original = json.loads(path.read_text())
    for change in ({"counts": {}}, {"layout": {**original["layout"], "renormalise": False}}, {"schema": 99}):
        path.write_text(json.dumps(original | change))
        with pytest.raises(DataError):
            verify(tmp_path)


def test_bad_inversions_drop_both_prompts(tiny_sd, tmp_path):
    _collect(tiny_sd, tmp_path / "all")
    by_picture = {}
    for line in storage.read_jsonl(tmp_path / "all" / "shards" / "train-0000.jsonl"):
        by_picture.setdefault(line["picture"], {})[line["kind"]] = line["quality"]
    worst = {name: max(values.values()) for name, values in by_picture.items()}
    # Between the two prompts of the worst picture: one of them would pass, the picture must go all the same.
    loser = max(worst, key=lambda name: worst[name])
    limit = sum(by_picture[loser].values()) / 2
    manifest = _collect(tiny_sd, tmp_path / "some", replace(CONFIG, quality=limit))
    kept = {line["picture"] for line in storage.read_jsonl(tmp_path / "some" / "shards" / "train-0000.jsonl")}
    assert kept == {name for name, value in worst.items() if value <= limit}
    assert kept and loser not in kept
    assert sum(manifest.counts["dropped"].values()) == 6 - sum(manifest.counts["pictures"].values()) > 0
    verify(tmp_path / "some")
    with pytest.raises(InversionError, match="none of the 6 images"):
        _collect(tiny_sd, tmp_path / "none", replace(CONFIG, quality=1e-9))


def test_names_that_do_not_exist_write_nothing(tiny_sd, tmp_path):
    for wrong in ({"source": "emojy"}, {"inversion": "noisy"}):
        with pytest.raises(UnknownNameError, match="did you mean"):
            _collect(tiny_sd, tmp_path / "out", replace(CONFIG, **wrong))
    assert not (tmp_path / "out").exists()


def test_rows_come_from_the_shards_when_memory_is_short(tiny_sd, tmp_path):
    _collect(tiny_sd, tmp_path)
    held, lazy = MapDataset.open(tmp_path, "train"), MapDataset.open(tmp_path, "train", in_memory=0)
    order = torch.tensor([7, 0, 19, 7])
    assert torch.equal(held.maps(order), lazy.maps(order))
    assert lazy.maps(order).dtype == torch.float16
    with pytest.raises(DataError, match="no test images"):
        MapDataset.open(tmp_path, "test")


def test_batches_mix_a_few_shards_at_a_time(tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[collect.__module__], "SHARD", 1)
    _collect(tiny_sd, tmp_path)
    held = MapDataset.open(tmp_path, "train")
    chosen = torch.arange(len(held))[held.label == held.prompted]
    row = held.maps([0]).nbytes
    one, two = (
        MapDataset.open(tmp_path, "train", in_memory=count * row) for count in (1, 4)
    )  # 2 of a shard's 4 are chosen
    reads, alive = [], []
    plain = MapDataset.maps

    def counted(self, index):
        assert all(block() is None for block in alive)  # one block in memory at a time
        reads.append(len({int(number) // 4 for number in index}))
        found = plain(self, index)
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(MapDataset, "maps", counted)
    for rows in (held, one, two):
        found = list(rows.batches(chosen, 3, torch.Generator().manual_seed(3)))
        again = list(rows.batches(chosen, 3, torch.Generator().manual_seed(3)))
        assert [len(index) for index, _ in found[:-1]] == [3, 3, 3]
        numbers = torch.cat([index for index, _ in found])
        assert torch.equal(numbers.sort().values, chosen) and not torch.equal(numbers, chosen)
        assert torch.equal(numbers, torch.cat([index for index, _ in again]))
        for index, maps in found:
            assert torch.equal(maps, plain(held, index))
    assert reads == [1] * 10 + [2, 2, 1] * 2


def test_prompts_have_the_true_relation_and_one_other():
    pictures = list(EMOJI.images(SourceRequest(60, 0, 64)))
    wrong_words, named = set(), 0
    for picture in pictures:
        true, wrong = prompt_pair(picture, CLASSES, 0)
        assert (true.kind, wrong.kind) == ("true", "wrong")
        assert true.relation.predicate == picture.predicate != wrong.relation.predicate
        assert prompt_pair(picture, CLASSES, 0) == (true, wrong)
        wrong_words.add((picture.predicate, wrong.relation.predicate))
        for prompt in (true, wrong):
            subject, reference = prompt.relation.subject_span, prompt.relation.object_span
            assert prompt.text[slice(*subject)] == picture.subject
            assert prompt.text[slice(*reference)] == picture.object
        tails = {prompt.text[prompt.relation.object_span[1] :] for prompt in (true, wrong)}
        assert len(tails) == 1
        named += bool(tails.pop())
        assert true.seed != wrong.seed
    assert {predicate for _, predicate in wrong_words} == set(CLASSES)
    assert 0 < named < sum(bool(picture.others) for picture in pictures)


def test_default_levels_are_the_noisier_part_of_the_schedule(tiny_sd):
    times, levels = kept_times(tiny_sd, FAMILY, default_levels(tiny_sd, FAMILY))
    assert times.tolist() == [961, 881, 801, 721, 641, 561, 481, 401]
    assert levels == tuple(sorted(levels, reverse=True))
    for wrong in ((), (1.5,), (0.0,), (0.5, 0.5)):
        with pytest.raises(DataError):
            kept_times(tiny_sd, FAMILY, wrong)
