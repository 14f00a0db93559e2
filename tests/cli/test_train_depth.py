"""The option --depth: a number, auto, or an error before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1" / "collection"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The depth and the confirmation of each training, which does nothing."""
    import learn_to_steer.training

    calls = list[Any]()

    def train(data: Any, out: Any, config: Any, *, steer: Any) -> Path:
        calls.append((config.depth, steer))
        Path(out).mkdir(exist_ok=True)
        return Path(out)

    monkeypatch.setattr(learn_to_steer.training, "train", train)
    return calls


@pytest.mark.parametrize(("text", "depth"), [("3", 3), ("auto", "auto")])
def test_a_depth_is_a_number_or_auto(run: Any, training: list[Any], tmp_path: Path, text: str, depth: Any) -> None:
    outcome = run("train", "--data", EDITION1, "--out", tmp_path / "out", "--depth", text)
    assert outcome.code == 0, outcome.err
    assert training == [(depth, None)]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["depth"] == depth
    # The file that was written can be read.
    (tmp_path / "run.yaml").write_text(f"data: {EDITION1}\nout: {tmp_path / 'out'}\ndepth: {text}\n")
    assert run("train", "--config", tmp_path / "run.yaml").code == 0
    assert training[1][0] == depth


@pytest.mark.parametrize("text", ["0", "1001", "-1", "1.5", "all", "9" * 5000, "³"])
def test_other_depths_are_refused(run: Any, training: list[Any], tmp_path: Path, text: str) -> None:
    outcome = run("train", "--data", EDITION1, "--out", tmp_path / "out", "--depth", text)
    assert outcome.code == 2 and training == []
    assert "depth" in outcome.err and len(outcome.err.strip().splitlines()) == 1


def test_a_confirmation_needs_a_choice_and_a_detector(run: Any, training: list[Any], tmp_path: Path) -> None:
    words = ("train", "--data", EDITION1, "--out", tmp_path / "out", "--confirm", "8")
    outcome = run(*words)
    assert outcome.code == 2 and "give --depth auto, too" in outcome.err
    outcome = run(*words, "--depth", "auto")  # the collection is of a model that has no name
    assert outcome.code == 2 and training == []
    outcome = run(*words, "--depth", "auto", "--detector", "emoji")
    assert outcome.code == 0, outcome.err
    ((depth, steer),) = training
    assert depth == "auto" and steer.args[0].detector == "emoji" and steer.args[0].limit == 8
