"""What messages of ``fit`` tell to do, tried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from told import tells, told

from learn_to_steer.collection import Manifest
from learn_to_steer.fitting import fit_model, trial
from learn_to_steer.fitting.config import FitConfig


class ModelIsLoadedError(Exception):
    """The folder was accepted."""


def test_folders_of_fit(run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(config: Any, **_: Any) -> Any:
        raise ModelIsLoadedError

    def accepted(out: str, **settings: Any) -> None:
        with pytest.raises(ModelIsLoadedError):
            fit_model.fit(FitConfig(**{"model": "sd:emoji", "out": out} | settings))

    monkeypatch.setattr(fit_model, "open_pipeline", loaded)
    monkeypatch.chdir(tmp_path)
    accepted("fit")
    other = ("fit", "--model", "sd:emoji", "--seed", 1, "--out")
    assert tells(run(*other, "fit", fails=True), "not 1; choose another --out, or remove the folder")
    accepted("fit-1", seed=1)
    shutil.rmtree("fit")
    accepted("fit", seed=1)

    settings = Path("fit", "config.json")
    whole = settings.read_text()
    settings.write_text(whole[:20])
    assert tells(run(*other, "fit", fails=True), "repair it, or remove the folder")
    settings.write_text(whole)
    accepted("fit", seed=1)

    Path("mine").mkdir()
    Path("mine", "thesis.tex").touch()
    assert tells(run(*other, "mine", fails=True), "choose a new or an empty folder (--out)")
    Path("empty").mkdir()
    accepted("empty")

    with told("choose one from 1, or call explain to see the plan"):
        fit_model.fit(FitConfig(model="sd:emoji", limit=0, out="none"))
    accepted("none", limit=1)
    assert fit_model.explain(FitConfig(model="sd:emoji", limit=0, out="none"))


def test_objects_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    manifest: Any = type("Manifest", (), {"shards": ["train-0000"]})
    monkeypatch.setattr(Manifest, "read", lambda folder: manifest)
    row = {"subject": "dog", "object": "dog", "prompt": "a dog"}
    (shards / "train-0000.jsonl").write_text(json.dumps(row) + "\n")
    with told("has images of fewer than two objects; name more of them (--objects)"):
        trial.trial_prompts(trial.DrawnPrompts.read(tmp_path), 4, 0)
    (shards / "train-0000.jsonl").write_text(json.dumps(row | {"object": "cat"}) + "\n")
    assert len(trial.trial_prompts(trial.DrawnPrompts.read(tmp_path), 4, 0)) == 4
