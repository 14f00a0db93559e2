"""The depth of a classifier: the least that reads as well as the best, unless it steers worse."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from learn_to_steer import storage
from learn_to_steer.classifier import load
from learn_to_steer.collection import Manifest, MapDataset
from learn_to_steer.collection.shards import totals, write_shard
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.geometry import BASIC
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.training import TrainConfig, train
from learn_to_steer.training.depth_choice import (
    candidate_depths,
    choose_by_accuracy,
    confirm_by_steering,
    steered_levels,
)
from learn_to_steer.training.trainer import Trained

EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1" / "collection"
# In the order of the channels; the denoiser runs the coarse ones in the middle.
NAMES = ("down_blocks.1.a.attn2", "up_blocks.0.a.attn2", "down_blocks.0.a.attn2", "up_blocks.1.a.attn2")
LAYOUT = Layout("sd", tuple(MapLayer(name, 1, 1 - index // 2) for index, name in enumerate(NAMES)), side=4)
TELLS = (1, 3)  # the channels whose maps show the relation: those of the third and the fourth layer to run
CONFIG = TrainConfig(
    epochs=6,
    rate=2e-2,
    width=8,
    hidden=8,
    head_hidden=8,
    layers=1,
    head_layers=1,
    head_heads=2,
    dropout=0.0,
    augment=False,
    depth="auto",
)
CORNERS = {"above": (0, 3), "below": (3, 0), "left of": (0, 1), "right of": (1, 0)}


def collection(folder: Path) -> Path:
    """A finished collection of maps with one bright place per object, in the channels that tell."""
    generator = torch.Generator().manual_seed(0)
    shards = {"train-0000": range(240), "val-0000": range(240, 300)}
    for shard, groups in shards.items():
        maps, rows = torch.rand(len(groups), 2, 4, 4, 4, generator=generator), []
        for row, group in enumerate(groups):
            for side, place in enumerate(CORNERS[BASIC[group % 4]]):
                maps[row, side, TELLS, place, place] += 20
            label = group % 4
            rows.append({"group": group, "kind": "true", "label": label, "prompted": label, "level": (group // 4) % 2})
        tensors = {key: torch.tensor([row[key] for row in rows]) for key in ("label", "prompted", "level", "group")}
        maps = maps / maps.sum((-2, -1), keepdim=True)
        write_shard(folder, shard, tensors | {"maps": maps.half()}, rows, [])
    manifest = Manifest(
        settings={"model": "sd:emoji", "side": 128},
        weights="0",
        layout=LAYOUT.as_dict(),
        fingerprint=LAYOUT.fingerprint,
        classes=list(BASIC),
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
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def chosen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chosen")
    train(data, out, CONFIG, progress=False)
    return out


def metrics(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def test_the_least_depth_that_tells_is_chosen(chosen: Path) -> None:
    table = metrics(chosen)["depths"]
    accuracy = {each["depth"]: each["accuracy"] for each in table["tried"]}
    assert list(accuracy) == [1, 2, 3, 4] and table["chosen"] == 3
    assert max(accuracy[1], accuracy[2]) < 0.5 < 0.9 < accuracy[3]
    layout = load(chosen).layout
    assert layout is not None
    assert [layer.name for layer in layout.layers] == [NAMES[0], NAMES[1], NAMES[2]]
    weights = [
        storage.load_tensors(folder / "relation_classifier.safetensors")[0] for folder in (chosen, chosen / "depth-3")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    card = (chosen / "README.md").read_text()
    assert "It reads the first 3 of 4 layers" in card and f"| 2 | {accuracy[2]:.3f} |" in card
    assert "below it: 3." in card and "by steering" not in card
    assert metrics(chosen)["config"]["depth"] == "auto" and metrics(chosen / "depth-3")["config"]["depth"] == 3


def test_a_killed_choice_goes_on_bit_for_bit(data: Path, chosen: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from learn_to_steer.training import trainer

    whole, left = trainer.TrainingRun.train_epoch, iter(range(9))

    def killed(self: Any, count: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        whole(self, count)

    monkeypatch.setattr(trainer.TrainingRun, "train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, CONFIG, progress=False)
    assert (tmp_path / "depth-1").is_dir() and not (tmp_path / "depth-3").is_dir()
    monkeypatch.setattr(trainer.TrainingRun, "train_epoch", whole)
    train(data, tmp_path, CONFIG, progress=False)
    for name in ("relation_classifier.safetensors", "metrics.json", "README.md", "depth-2/checkpoint.pt"):
        assert (tmp_path / name).read_bytes() == (chosen / name).read_bytes(), name


def test_what_cannot_be_chosen(data: Path, chosen: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="collect again with --reduce none"):
        train(EDITION1, tmp_path / "means", CONFIG, progress=False)
    train(data, tmp_path / "one", replace(CONFIG, depth=1, epochs=1), progress=False)
    with pytest.raises(DataError, match=r"depth 1, not 'auto'; use another folder"):
        train(data, tmp_path / "one", CONFIG, progress=False)
    with pytest.raises(DataError, match="depth 1, not None; use another folder"):
        train(data, tmp_path / "one", replace(CONFIG, depth=None, epochs=1), progress=False)
    with pytest.raises(DataError, match="needs the depth auto"):
        train(data, tmp_path / "two", replace(CONFIG, depth=2), progress=False, steer=lambda folder: {})


def test_some_channels_are_read_alike_from_memory_and_from_disk(data: Path) -> None:
    whole = MapDataset.open(data, "val")
    rows = torch.tensor([5, 0, 59])
    for channels in ([1, 3], [0, 1, 2, 3]):
        for bytes_in_memory in (2**30, 1):
            some = MapDataset.open(data, "val", in_memory=bytes_in_memory, channels=channels)
            assert torch.equal(some.maps(rows), whole.maps(rows)[:, :, channels])


def candidates(*right: list[bool], level: list[int] | None = None, images: int = 0) -> list[Trained]:
    """Classifiers of depths 1, 2, ... that name the relation in the given rows."""
    rows = len(right[0])
    model: Any = type("Model", (), {"config": type("Config", (), {"levels": (0.9, 0.5)})})
    levels, group = torch.tensor(level or [0] * rows), torch.arange(rows) // (rows // images if images else 1)
    return [
        Trained(Path(str(depth)), TrainConfig(depth=depth), model, {}, [], torch.tensor(values), levels, group)
        for depth, values in enumerate(right, start=1)
    ]


def share(right: int, rows: int = 100) -> list[bool]:
    return [row < right for row in range(rows)]


def test_one_standard_error() -> None:
    # The standard error of .80 in 100 images is .040.
    assert choose_by_accuracy(candidates(share(75), share(77), share(80)), [0])[0] == 1
    assert choose_by_accuracy(candidates(share(77), share(70), share(80)), [0])[0] == 0
    index, table = choose_by_accuracy(candidates(share(60), share(90), share(80)), [0])
    assert (index, table["chosen"]) == (1, 2)
    assert table["standard_error"] == pytest.approx((0.9 * 0.1 / 99) ** 0.5)
    # Twenty rows of one image say no more than one: with five images it is .2.
    assert choose_by_accuracy(candidates(share(65), share(80), images=5), [0])[0] == 0


def test_only_the_steered_levels_count() -> None:
    level = [0] * 50 + [1] * 50
    early, late = share(50), [not value for value in share(50)]
    assert choose_by_accuracy(candidates(early, late, level=level), [0])[0] == 0
    assert choose_by_accuracy(candidates(early, late, level=level), [1])[0] == 1


@pytest.mark.parametrize(
    ("settings", "levels", "expected"),
    [
        ({"model": "flux:emoji", "levels": None}, [0.96 - 0.08 * index for index in range(8)], [0, 1, 2, 3, 4, 5]),
        ({"model": "flux:emoji-schnell", "levels": [0.8, 0.65, 0.5]}, [0.8, 0.65, 0.5], [0]),
        ({"model": "owner/model", "levels": [0.9, 0.6, 0.3]}, [0.9, 0.6, 0.3], [0, 1]),
        ({"levels": [0.3, 0.2]}, [0.3, 0.2], [0]),
    ],
)
def test_levels_of_the_steered_window(data: Path, settings: Any, levels: list[float], expected: list[int]) -> None:
    assert steered_levels(replace(Manifest.read(data), settings=settings, levels=levels)) == expected


@pytest.mark.parametrize(("layers", "depths"), [(1, [1]), (9, [2, 3, 5, 6, 9]), (57, [10, 15, 19, 29, 38, 57])])
def test_candidates_are_spread_over_the_layers(data: Path, layers: int, depths: list[int]) -> None:
    layout = Layout("flux", tuple(MapLayer(f"single.{index}", 1, 0) for index in range(layers)))
    assert candidate_depths(replace(Manifest.read(data), layout=layout.as_dict())) == depths


def steering(**right: int) -> tuple[Callable[[Path], dict[tuple[int, int], bool]], list[str]]:
    """A trial in which the classifiers of some depths are right on so many of 48 prompts, and the depths it was of."""
    asked: list[str] = []

    def steer(folder: Path) -> dict[tuple[int, int], bool]:
        asked.append(folder.name)
        return {(number, 0): number < right[f"d{folder.name}"] for number in range(48)}

    return steer, asked


def test_a_depth_that_steers_worse_is_left(caplog: Any) -> None:
    tried = candidates(*[share(80)] * 4)
    steer, asked = steering(d1=20, d2=30, d3=44, d4=45)
    with caplog.at_level(logging.WARNING):
        index, rows = confirm_by_steering(tried, 0, steer)
    assert index == 2 and asked == ["4", "1", "2", "3"]
    assert [row["worse"] for row in rows] == [True, True, False]
    assert rows[0]["accuracy"] == pytest.approx(20 / 48) and rows[0]["full_accuracy"] == pytest.approx(45 / 48)
    assert caplog.text.count("steers worse than full depth") == 2
    steer, asked = steering(d2=47, d4=45)
    assert confirm_by_steering(tried, 1, steer)[0] == 1
    steer, asked = steering(d3=0, d4=45)
    assert confirm_by_steering(tried, 2, steer)[0] == 3
    assert confirm_by_steering(tried, 3, steer)[0] == 3 and asked == ["4", "3"]  # full depth needs no trial


def test_the_card_says_what_steering_found(data: Path, chosen: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(chosen, tmp_path / "again")  # its trainings are finished
    right = {"depth-3": 10, "depth-4": 40}
    train(
        data,
        tmp_path / "again",
        CONFIG,
        progress=False,
        steer=lambda folder: {(number, 0): number < right[folder.name] for number in range(48)},
    )
    table = metrics(tmp_path / "again")["depths"]
    assert table["chosen"] == 4 and [row["depth"] for row in table["steered"]] == [3]
    card = (tmp_path / "again" / "README.md").read_text()
    assert "It reads all 4 layers" in card and "below it: 3." in card  # chosen by accuracy, and found to be worse
    assert "| 3 | 0.21 | 0.83 |" in card and "steering 48 validation prompts" in card
    layout = load(tmp_path / "again").layout
    assert layout is not None and layout.channels == 4
