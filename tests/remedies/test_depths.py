"""What messages about the depth of a classifier tell to do, tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from told import tells

from learn_to_steer.collection import Manifest
from learn_to_steer.evaluation import validation_prompts


def test_depths(run: Callable[..., str], saved_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--limit", 16, "--side", 64, "--levels", "0.9", "--quality", "1e9", "--source", "emoji")
    run("collect", "--model", saved_sd, *small, "--out", "maps")
    train = ("train", "--epochs", "1", "--width", "4", "--data", "maps", "--out")
    assert tells(run(*train, "deep", "--depth", 9, fails=True), "; make it smaller")
    run(*train, "deep", "--depth", 1)

    run("collect", "--model", saved_sd, *small, "--reduce", "mean", "--out", "means")
    means = ("train", "--data", "means", "--epochs", 1, "--width", 4, "--out", "mean", "--depth", "auto")
    assert tells(run(*means, fails=True), "of which none can be left out; collect again with --reduce none")

    assert tells(run(*train, "chosen", "--confirm", 2, fails=True), "a depth that was chosen; give --depth auto, too")
    confirm = (*train, "chosen", "--depth", "auto", "--confirm", 2)
    assert tells(run(*confirm, fails=True), "name a --detector for images of")
    monkeypatch.setattr(validation_prompts, "_steer", lambda config, folder: {(0, 0): True, (1, 0): False})
    run(*confirm, "--detector", "emoji")
    chosen = (tmp_path / "chosen" / "relation_classifier.safetensors").read_bytes()
    assert tells(run(*train, "chosen", "--depth", 1, fails=True), "holds a run with depth 'auto', not 1; use another")
    assert (tmp_path / "chosen" / "relation_classifier.safetensors").read_bytes() == chosen

    given = (*train, "chosen", "--depth", "auto", "--detector", "emoji")
    assert tells(run(*given, fails=True), "give --confirm, too, or leave --detector out")
    run(*given[:-2])
    run(*given, "--confirm", 2)

    # Settings without a model are those of a collection that was made by other means.
    with pytest.raises(Exception, match="collect again") as refusal:
        validation_prompts.steering_trial({}, 2, "emoji")
    assert tells(str(refusal.value), "so nothing can be steered; collect again")
    validation_prompts.steering_trial(Manifest.read(tmp_path / "maps").settings, 2, "emoji")
