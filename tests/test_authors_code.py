"""reproduce/authors_*.py: patches in a clone, the checkpoint that the authors' code is given, and the counts."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from learn_to_steer.classifier import ClassifierConfig, RelationClassifier, read_official
from learn_to_steer.errors import MismatchError
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.prompts import Relation

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "reproduce"
STAND_IN = ROOT / "tests" / "fixtures" / "authors_stand_in"
LAYERS = tuple(MapLayer(f"blocks.{index}.attn2", 2, index) for index in range(2))
LEVELS = (0.99, 0.9, 0.6, 0.3, 0.1)  # of five denoising steps


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("authors_patches", "authors_code", "authors_side_by_side")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def loading(scripts: dict[str, Any]) -> Any:
    return scripts["authors_patches"]


@pytest.fixture
def code(scripts: dict[str, Any]) -> Any:
    return scripts["authors_code"]


def clone(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_only_the_named_value_in_the_named_place_is_replaced(loading: Any, tmp_path: Path) -> None:
    source = (
        "SIZE = 50\n"
        "class A:\n"
        "    def size(self, first=50):\n"
        "        return {'size': 50, 'other': 50}, first, 500\n"
        "class B:\n"
        "    def size(self):\n"
        "        return {'size': 50, 'other': 50}\n"
    )
    patches = [
        loading.Patch("run.py", "A.size", "50", "7", "size"),
        loading.Patch("run.py", "B.size", "50", "8", "", "size"),
    ]
    with loading.patched_modules(clone(tmp_path, run=source), patches) as done:
        run = importlib.import_module("run")
        assert run.SIZE == 50
        assert run.A().size() == ({"size": 7, "other": 7}, 7, 500)
        assert run.B().size() == {"size": 8, "other": 50}
    assert [(line.line, line.old, line.new) for line in done] == [
        (3, "50", "7"),
        (4, "50", "7"),
        (4, "50", "7"),
        (7, "50", "8"),
    ]


def test_a_package_that_is_missing_and_not_used_is_left_out(
    loading: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "UNUSED", ("no_such_package",))
    source = "import json\nfrom no_such_package import one, two as second\n"
    with loading.patched_modules(clone(tmp_path, run=source), []) as done:
        run = importlib.import_module("run")
    assert (run.one, run.second, run.json) == (None, None, json)
    assert [(line.file, line.line) for line in done] == [("run.py", 2)]


def test_a_clone_is_only_read_and_forgotten_afterwards(loading: Any, tmp_path: Path) -> None:
    with loading.patched_modules(clone(tmp_path, run="from utils import ONE", utils="ONE = 1"), []):
        assert importlib.import_module("run").ONE == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.py", "utils.py"]
    assert not {"run", "utils"} & sys.modules.keys()
    assert importlib.util.find_spec("run") is None


def classifier(layers: tuple[MapLayer, ...] = LAYERS, **settings: Any) -> RelationClassifier:
    torch.manual_seed(0)
    layout = Layout("sd", layers)
    config = ClassifierConfig(
        ("above", "left of", "is"), layout.channels, 3, levels=(0.95, 0.5, 0.2), width=16, layout=layout.as_dict()
    )
    return RelationClassifier(config).eval()


def test_their_checkpoint_computes_what_ours_does_at_each_step(code: Any, tmp_path: Path) -> None:
    ours = classifier()
    path = tmp_path / "classifier.pth"
    code.write_checkpoint(ours, ours.layout, LEVELS, 16, path)
    theirs = read_official(path)
    assert theirs.config.classes == ours.config.classes
    assert torch.load(path, weights_only=True)["rel_name_to_idx"] == {"above": 0, "to the left of": 1, "is": 2}
    maps = torch.rand(1, 2, ours.config.channels, 16, 16)
    rows = []
    for step, level in enumerate(LEVELS):
        row = ours.config.row(level, step, len(LEVELS))
        rows.append(row)
        assert torch.allclose(theirs(maps, torch.tensor([step])), ours(maps, torch.tensor([row])), rtol=0, atol=1e-6)
    assert rows == [0, 0, 1, 2, 2]


def test_a_classifier_of_some_layers_is_refused(code: Any, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="--authors-classifier"):
        code.write_checkpoint(classifier(LAYERS[:1]), Layout("sd", LAYERS), LEVELS, 16, tmp_path / "classifier.pth")


def test_forwards_for_the_loss_and_their_backwards_are_counted(code: Any, tmp_path: Path) -> None:
    loop = code.AuthorsLoop(None, [], tmp_path)
    module = nn.Linear(2, 1)
    module.register_forward_pre_hook(loop.count, with_kwargs=True)
    with torch.no_grad():
        module(torch.ones(2))
    for backward in (True, False, True):
        latents = torch.ones(2, requires_grad=True)
        loss = module(latents).sum()
        if backward:
            torch.autograd.grad(loss, latents)
    assert (loop.looks, loop.passes) == (3, 2)


def test_objects_are_given_in_the_prompts_words(code: Any) -> None:
    prompt = "two Dogs left of a cat"
    relation = Relation("dog", "left of", "cat", (4, 8), None)
    assert code.triplets(prompt, [relation]) == [("Dogs", "to the left of", "cat")]


def test_a_ratio_is_paired(scripts: dict[str, Any]) -> None:
    ratio = scripts["authors_side_by_side"].ratio_of_means
    second = [1.0, 5.0, 2.0, 9.0]
    assert ratio([3 * value for value in second], second) == pytest.approx((3, 3, 3))
    value, low, high = ratio([4.0, 5.0, 12.0, 9.0], second)
    assert value == pytest.approx(30 / 17)
    assert low < value < high


def side_by_side(place: Path, authors: Path) -> subprocess.CompletedProcess[str]:
    script = str(FOLDER / "authors_side_by_side.py")
    command = [
        sys.executable,
        script,
        "--authors",
        str(authors),
        "--prompts",
        "1",
        "--json",
        "--out",
        str(place / "out"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_all_ways_are_compared(tmp_path: Path) -> None:
    ended = side_by_side(tmp_path, STAND_IN)
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads(ended.stdout)
    assert result == json.loads((tmp_path / "out" / "sd-emoji.json").read_text())
    assert [row["way"] for row in result["rows"]] == ["plain", "authors", "official", "default"]
    plain, authors, official, default = result["rows"]
    assert (authors["passes"], authors["checks"]) == (1, 0)
    assert plain["passes"] == 0 < default["passes"] < official["passes"] == 208
    assert "authors / default" in result["ratios"]
    replaced = {(line["file"], line["old"], line["new"]) for line in result["patched"]}
    assert {("run.py", "50", "25"), ("run.py", "512", "128"), ("run.py", "25", "13")} <= replaced


def test_a_clone_of_another_version_is_named(loading: Any, tmp_path: Path) -> None:
    source = "class A:\n    def size(self):\n        return 50\n"
    found = loading.Patch("run.py", "A.size", "50", "7", "size")
    missing = loading.Patch("run.py", "A.size", "7.5", "4.0", "guidance")
    with loading.patched_modules(clone(tmp_path, run=source), [found, missing]) as done:
        importlib.import_module("run")
    loading.require_applied(tmp_path, [found], done)
    with pytest.raises(loading.DataError, match=r"run\.py of .* has no 7\.5 in A\.size; .* the clone is at unknown"):
        loading.require_applied(tmp_path, [found, missing], done)


def test_a_folder_that_is_no_clone_is_refused(code: Any, tmp_path: Path) -> None:
    with pytest.raises(code.DataError, match=r"no run\.py"):
        code.require_clone(tmp_path)
