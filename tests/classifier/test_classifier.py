"""The network has the paper's sizes; its file carries its meaning and refuses what is not one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from learn_to_steer.classifier import ClassifierConfig, RelationClassifier, load, read_official, save
from learn_to_steer.errors import DataError, MismatchError
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.storage import load_tensors, save_tensors

CLASSES = ("above", "below", "is", "left of", "right of")
LAYOUT = Layout("sd", (MapLayer("a.attn2", 4, 0), MapLayer("b.attn2", 2, 1)))
FLUX: dict[str, Any] = {
    "layers": 4,
    "heads": 4,
    "hidden": 512,
    "query_heads": 4,
    "head_layers": 4,
    "head_heads": 8,
    "head_hidden": 512,
}
EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1" / "classifier"
GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "sd_classifier.pth"


def small(**changes: Any) -> RelationClassifier:
    settings: dict[str, Any] = {"width": 32, "layers": 1, "hidden": 16, "head_layers": 1, "head_hidden": 16}
    settings |= {"channels": 6, "times": 3, "levels": (1.0, 0.9, 0.7), "layout": LAYOUT.as_dict()}
    return RelationClassifier(ClassifierConfig(classes=CLASSES, **(settings | changes))).eval()


@pytest.mark.parametrize(
    ("times", "sizes", "parameters", "entries"),
    [(50, {}, 1_964_581, 73), (4, FLUX, 4_848_453, 121), (50, FLUX, 4_860_965, 121)],
)
def test_sizes_are_the_authors(times: int, sizes: dict[str, Any], parameters: int, entries: int) -> None:
    model = RelationClassifier(ClassifierConfig(classes=CLASSES, channels=1368, times=times, **sizes))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


def test_swapping_the_objects_matters() -> None:
    model, maps = small(), torch.rand(4, 2, 6, 16, 16)
    row = torch.tensor([0, 1, 2, 0])
    assert model(maps, row).shape == (4, 5)
    assert not torch.allclose(model(maps, row), model(maps.flip(1), row))


def test_the_nearest_trained_level_is_used() -> None:
    config = small().config
    assert [config.row(level, step=0, steps=50) for level in (0.99, 0.93, 0.85, 0.1)] == [0, 1, 1, 2]


def test_imported_indices_round_up() -> None:
    config = small(levels=(), steps=(5, 10, 15, 20, 25, 49), times=50).config
    assert [config.row(0.5, step, config.times) for step in (0, 5, 6, 21, 26, 49)] == [5, 5, 10, 25, 49, 49]
    # With half as many steps the same noise is half as far in.
    assert config.row(0.5, 10, config.times // 2) == config.row(0.5, 20, config.times)


def test_a_file_gives_the_same_classifier(tmp_path: Path) -> None:
    model = small()
    save(model, tmp_path, {"accuracy": 0.5})
    again = load(tmp_path)
    assert again.config.row(0.9, 0, 50) == 1 and again.config.classes == CLASSES and again.layout == LAYOUT
    maps, row = torch.rand(3, 2, 6, 16, 16), torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(again(maps, row), model(maps, row), rtol=1e-2, atol=1e-2)  # fp16 weights


def test_other_maps_are_refused() -> None:
    with pytest.raises(MismatchError, match="up to 6 maps"):
        small()(torch.rand(1, 2, 7, 16, 16), torch.zeros(1, dtype=torch.long))
    with pytest.raises(MismatchError, match="side"):
        small()(torch.rand(1, 2, 6, 8, 8), torch.zeros(1, dtype=torch.long))


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load(tmp_path / "nothing")
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "something else"})
    with pytest.raises(DataError, match="something else"):
        load(tmp_path / "other.safetensors")


def header_without(name: str) -> Any:
    return lambda state, config: config.pop(name)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state, config: state.update({next(iter(state)): torch.zeros(9, 9)}), "size mismatch"),
        (lambda state, config: config.update(colour="blue"), "colour"),
        (lambda state, config: config.update(width=16), "size mismatch"),
        (lambda state, config: config.update(classes=5), "classes cannot be 5"),
        (header_without("classes"), "classes"),
        (header_without("layout"), "layout"),
        (lambda state, config: config.update(layout={}), "layers"),
        (lambda state, config: config.update(layout="x"), "layout cannot be 'x'"),
        (lambda state, config: config.update(heads=5), "divisible"),
        (lambda state, config: config.update(levels=["x"]), "levels"),
        (lambda state, config: config.update(levels=[]), "levels and the steps"),
        (lambda state, config: config.update(inject="late"), "inject"),
        (lambda state, config: next(iter(state.values())).view(-1)[0].fill_(float("nan")), "not finite"),
    ],
    ids=[
        "shape",
        "unknown key",
        "other width",
        "classes",
        "no classes",
        "no layout",
        "empty layout",
        "odd layout",
        "heads",
        "levels",
        "no levels",
        "inject",
        "nan",
    ],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, damage: Any, words: str) -> None:
    path = save(small(), tmp_path)
    state, header = load_tensors(path)
    config = json.loads(header["config"])
    damage(state, config)
    save_tensors(path, state, header | {"config": json.dumps(config)})
    with pytest.raises(DataError, match=words) as refusal:
        load(tmp_path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    "header",
    [{}, {"config": "{"}, {"config": "[]"}, {"config": "[" * 100_000}, {"config": '{"width": ' + "9" * 5000 + "}"}],
    ids=["none", "no JSON", "a list", "deep", "digits"],
)
def test_a_header_that_says_nothing_is_refused(tmp_path: Path, header: dict[str, str]) -> None:
    path = save(small(), tmp_path)
    state, whole = load_tensors(path)
    save_tensors(path, state, {"format": whole["format"]} | header)
    with pytest.raises(DataError, match=r"config in (the|its) header"):
        load(tmp_path)


def test_an_official_file_is_read_in_its_own_order() -> None:
    model = read_official(GOLDEN, LAYOUT)
    assert model.config.classes == CLASSES
    assert model.config.steps == (5, 10, 15, 20, 25, 49)
    assert model.layout == LAYOUT


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


@pytest.mark.parametrize("content", ["evil", "list", "truncated", "text"])
def test_a_foreign_official_file_is_refused_in_one_line(tmp_path: Path, content: str, capsys: Any) -> None:
    path = tmp_path / "file.pth"
    if content == "evil":
        torch.save({"model_state_dict": Evil()}, path)
    elif content == "list":
        torch.save([1, 2], path)
    elif content == "truncated":
        path.write_bytes(GOLDEN.read_bytes()[:5000])
    else:
        path.write_text("not a checkpoint")
    with pytest.raises(DataError) as refused:
        read_official(path)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


def test_version_0_1_can_read_the_config_in_a_file(tmp_path: Path) -> None:
    _, former = load_tensors(EDITION1 / "relation_classifier.safetensors")
    path = save(small(trained_on={"model": "owner/base", "weights": "0123"}), tmp_path)
    state, header = load_tensors(path)
    assert json.loads(header["config"]).keys() <= json.loads(former["config"]).keys()  # it refuses further ones
    for wrong in ('{"model": 5}', "[]", "{", "null"):
        save_tensors(path, state, header | {"trained_on": wrong})
        with pytest.raises(DataError, match="trained_on"):
            load(path)
