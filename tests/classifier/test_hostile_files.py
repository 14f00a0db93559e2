"""A classifier from a stranger is checked before a network is made: types, sizes, names, shapes and values."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from learn_to_steer.classifier import ClassifierConfig, RelationClassifier, import_official, load, read_official, save
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.storage import load_tensors, save_tensors

CLASSES = ("above", "below", "is", "left of", "right of")
LAYOUT = Layout("sd", (MapLayer("a.attn2", 4, 0), MapLayer("b.attn2", 2, 1)))
GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "sd_classifier.pth"
HUGE = 2**31


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a small classifier."""
    sizes: dict[str, Any] = {"width": 32, "layers": 1, "hidden": 16, "head_layers": 1, "head_hidden": 16}
    config = ClassifierConfig(CLASSES, 6, 3, (1.0, 0.9, 0.7), layout=LAYOUT.as_dict(), **sizes)
    return save(RelationClassifier(config), tmp_path)


@pytest.fixture
def no_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, a network that needs memory fails the test."""
    made = nn.Linear.__init__

    def make(self: nn.Linear, *arguments: Any, **settings: Any) -> None:
        made(self, *arguments, **settings)
        assert self.weight.is_meta, "memory was allocated for a network that does not fit its file"

    monkeypatch.setattr(nn.Linear, "__init__", make)


def rewrite(path: Path, **changes: Any) -> None:
    state, header = load_tensors(path)
    save_tensors(path, state, header | {"config": json.dumps(json.loads(header["config"]) | changes)})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", HUGE),
        ("layers", 0),
        ("layers", -1),
        ("layers", True),
        ("layers", "2"),
        ("layers", 2.0),
        ("head_layers", HUGE),
        ("width", 0),
        ("width", 33),
        ("width", HUGE),
        ("width", None),
        ("channels", 2**64),
        ("channels", 0),
        ("channels", 10**400),
        ("times", 10**9),
        ("side", 100_000),
        ("heads", 2.5),
        ("heads", 3),
        ("head_heads", 0),
        ("query_heads", -2),
        ("hidden", HUGE),
        ("head_hidden", [16]),
        ("time_width", HUGE),
        ("fc_widths", [256]),
        ("fc_widths", [256, HUGE]),
        ("dropout", float("nan")),
        ("dropout", 1),
        ("dropout", -0.1),
        ("dropout", "0.1"),
        ("inject", ["mid"]),
        ("extractor", "max"),
        ("classes", []),
        ("classes", "above"),
        ("classes", ["above", "above"]),
        ("classes", ["above", ""]),
        ("classes", ["above", 1]),
        ("classes", ["above", "left\nof"]),
        ("classes", ["above", "\x1b[31mbelow"]),
        ("classes", ["a" * 1000, "b"]),
        ("classes", [str(number) for number in range(10_000)]),
        ("levels", [float("inf"), 0.5]),
        ("levels", [1.5]),
        ("levels", [True]),
        ("levels", [0.5] * 4),
        ("levels", {"0": 1.0}),
        ("steps", [2, 1]),
        ("steps", [5]),
        ("steps", [0.5]),
        ("layout", None),
        ("layout", {"family": "sd", "layers": [{"name": "a", "heads": HUGE, "level": 0}]}),
        ("layout", {"family": "sd", "layers": [{"name": "a", "heads": 2, "level": HUGE}]}),
        ("layout", {"family": "sd", "layers": [{"name": "a", "heads": "2", "level": 0}]}),
        ("layout", {"family": "sd", "layers": [{"name": "a", "heads": 7, "level": 0}]}),
        ("layout", {"family": "sd", "layers": []}),
        ("layout", {"family": "sd", "layers": 5}),
        ("layout", {"family": 5, "layers": [{"name": "a", "heads": 2, "level": 0}]}),
        ("layout", LAYOUT.as_dict() | {"side": HUGE}),
        ("layout", LAYOUT.as_dict() | {"reduce": "most"}),
        ("layout", LAYOUT.as_dict() | {"renormalise": "no"}),
        ("layout", LAYOUT.as_dict() | {"colour": 1}),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("no_network")
def test_a_hostile_config_is_refused_by_file_and_field(path: Path, field: str, value: Any) -> None:
    rewrite(path, **{field: value})
    with pytest.raises(DataError) as refusal:
        load(path)
    message = str(refusal.value)
    assert str(path) in message and len(message) < len(str(path)) + 400
    words = {"layout": ("layout", "attention layer"), "layers": ("layers",)}.get(field, (field,))
    assert any(word in message for word in words) or "finite" in message or "not valid JSON" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 4096},
        {"side": 128},
        {"times": 10_000},
        {"hidden": 16_384},
        {"fc_widths": [16_384, 16_384]},
        {"layers": 64},
        {"extractor": "mean"},
        {"inject": "none"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_network")
def test_weights_are_compared_with_the_config_before_memory_is_allocated(path: Path, changes: dict[str, Any]) -> None:
    rewrite(path, **changes)
    with pytest.raises(DataError, match="does not fit its own config"):
        load(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tensor: tensor.to(torch.int32), "holds torch.int32"),
        (lambda tensor: tensor.to(torch.complex64), "holds torch.complex64"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "holds torch.float8"),
        (lambda tensor: tensor[:1], "size mismatch"),
        (lambda tensor: torch.full_like(tensor, torch.inf), "not finite"),
    ],
    ids=["integers", "complex", "8 bits", "shape", "infinite"],
)
def test_hostile_weights_are_refused(path: Path, damage: Callable[[torch.Tensor], torch.Tensor], words: str) -> None:
    state, header = load_tensors(path)
    name = "relation_classifier.projection.weight"
    save_tensors(path, state | {name: damage(state[name].float())}, header)
    with pytest.raises(DataError, match=words) as refusal:
        load(path)
    assert str(path) in str(refusal.value) and name in str(refusal.value)


@pytest.mark.parametrize("field", ["width", "dropout", "classes"])
def test_the_same_values_are_refused_from_python(field: str) -> None:
    with pytest.raises(DataError, match=field):
        ClassifierConfig(**{"classes": CLASSES, "channels": 6, "times": 3, field: float("nan")})


def checkpoint(**changes: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(GOLDEN, weights_only=True)
    return loaded | changes


def without(key: str) -> dict[str, Any]:
    loaded = checkpoint()
    del loaded[key]
    return loaded


def sized(**changes: Any) -> dict[str, Any]:
    """The checkpoint with other sizes in its config."""
    loaded = checkpoint()
    config = loaded["config"]
    for name, value in changes.items():
        part = config if name in config else config["extractor" if name in config["extractor"] else "classifier"]
        part[name] = value
    return loaded


def weights(change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    state = dict(checkpoint()["model_state_dict"])
    name = next(name for name in state if name.endswith("projection.weight"))
    return checkpoint(model_state_dict=state | {name: change(state[name])})


@pytest.mark.parametrize(
    "content",
    [
        [],
        5,
        "text",
        torch.zeros(3),
        {},
        without("config"),
        without("model_state_dict"),
        without("idx_to_rel_name"),
        checkpoint(config=[]),
        checkpoint(config={"extractor": None, "classifier": 1}),
        checkpoint(model_state_dict=None),
        checkpoint(model_state_dict={}),
        checkpoint(model_state_dict={1: torch.zeros(1)}),
        checkpoint(model_state_dict={"x": torch.zeros(1)}),
        checkpoint(idx_to_rel_name={0: "above", 1: 5, 2: "is", 3: "left of", 4: "right of"}),
        checkpoint(idx_to_rel_name={0: "above", 9: "below"}),
        checkpoint(idx_to_rel_name={"x": "above"}),
        checkpoint(idx_to_rel_name=["above"]),
        checkpoint(training_config=[1]),
        checkpoint(training_config={"timesteps": 5}),
        checkpoint(training_config={"timesteps": ["x"]}),
        checkpoint(training_config={"timesteps": [99]}),
        checkpoint(input_channels=float("inf")),
        checkpoint(input_channels=float("nan")),
        checkpoint(input_channels="6"),
        checkpoint(input_channels=2**64),
        checkpoint(input_channels=torch.zeros(3)),
        sized(num_timesteps=HUGE),
        sized(num_timesteps=-1),
        sized(d_model=0),
        sized(d_model=2.5),
        sized(map_size=HUGE),
        sized(num_layers=HUGE),
        sized(nhead=0),
        sized(dropout=float("nan")),
        weights(lambda tensor: tensor[:1]),
        weights(lambda tensor: tensor.fill_(float("nan"))),
        weights(lambda tensor: tensor.int()),
        weights(lambda tensor: None),
        weights(lambda tensor: [1.0]),
    ],
    ids=lambda value: "",
)
@pytest.mark.usefixtures("no_network")
def test_an_odd_checkpoint_of_the_authors_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match=r"odd\.pth is not"):
        import_official(path, LAYOUT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", [[1], {"above": [0]}, {0: "above"}], ids=str)
def test_an_odd_second_table_of_relations_is_refused(tmp_path: Path, labels: Any) -> None:
    torch.save(checkpoint(rel_name_to_idx=labels), tmp_path / "odd.pth")
    with pytest.raises(DataError, match=r"odd\.pth is not .*: rel_name_to_idx is no table"):
        import_official(tmp_path / "odd.pth", LAYOUT, tmp_path / "out")


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "zip", "folder"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.pth"
    if kind == "folder":
        path.mkdir()
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", b"nothing")
    else:
        whole = GOLDEN.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}[kind])
    reason = r"odd\.pth: it is a folder" if kind == "folder" else r"odd\.pth is not a checkpoint"
    with pytest.raises(DataError, match=reason):
        read_official(path)


def test_a_huge_file_is_refused_before_it_is_read(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2**30 + 1)  # takes no space on the disk
    with pytest.raises(DataError, match="larger than 1 GiB"):
        load(path)
