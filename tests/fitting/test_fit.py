"""``fit``: what it leaves, what it warns of, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer import Steerer
from learn_to_steer.classifier import load
from learn_to_steer.errors import DataError
from learn_to_steer.fitting import fit_model
from learn_to_steer.fitting.config import FitConfig

FILES = ("relation_classifier.safetensors", "README.md", "metrics.json", "report.json", "report.html", "config.json")


def config(out: Path, **settings: Any) -> FitConfig:
    return FitConfig(**{"model": "sd:emoji", "limit": 300, "epochs": 6, "trial": 0, "out": str(out)} | settings)


def test_the_classifier_its_card_and_its_report(stage: Any, tmp_path: Path) -> None:
    report = fit_model.fit(config(tmp_path / "fit"), progress=False)
    assert all((tmp_path / "fit" / name).is_file() for name in FILES)
    assert json.loads((tmp_path / "fit" / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["warnings"] == [] and report["trial"] is None
    drawn = report["drawn"]
    assert (drawn["images"], drawn["usable"], drawn["obeyed"]) == (208, 200, pytest.approx(0.2, abs=0.02))
    assert drawn["dropped"] == {"pair: both of its objects are missing": 6}
    assert drawn["skipped"] == {"pair: both of its objects are missing": 7}
    assert drawn["pairs"] == dict.fromkeys(("above", "below", "left of", "right of", "is"), 40)
    assert report["classifier"]["accuracy"] > 0.9 and report["classifier"]["pictures"] == 40
    assert report["classifier"]["depth"] == 1 and report["classifier"]["layers"] == 2
    assert report["leakage"]["above_chance"] == pytest.approx(0, abs=0.1)
    assert load(tmp_path / "fit").config.temperatures
    assert Steerer.from_pretrained(str(tmp_path / "fit"))
    card = (tmp_path / "fit" / "README.md").read_text()
    assert "200 pictures," in card and "two prompts each" not in card
    assert "at most .10 is wanted" in card and "## Warnings" not in card
    (collected,) = stage.collected
    assert (collected.source, collected.inversion, collected.limit, collected.side) == ("drawn", "path", 300, 128)
    trained = json.loads((tmp_path / "fit" / "metrics.json").read_text())["config"]
    assert trained["depth"] == "auto" and trained["prompts"] == "balanced"


def test_few_images_are_worth_a_warning(stage: Any, tmp_path: Path) -> None:
    stage.splits = {"train": 30, "val": 5, "test": 5}
    report = fit_model.fit(config(tmp_path), progress=False)
    assert any("only 40 images could be used" in text for text in report["warnings"])
    assert "only 40 images could be used" in (tmp_path / "README.md").read_text().lower()
    assert "nly 40 images could be used" in (tmp_path / "report.html").read_text()


def test_eight_images_are_enough_wherever_they_are(stage: Any, tmp_path: Path) -> None:
    stage.splits = {"train": 8, "val": 0, "test": 0}
    report = fit_model.fit(config(tmp_path, epochs=1), progress=False)
    assert report["drawn"]["usable"] == 8 and report["classifier"]["pictures"] == 2
    assert load(tmp_path)


@pytest.mark.parametrize(
    ("splits", "labels", "text"),
    [
        ({"train": 6, "val": 1}, ("above", "below"), "only 7 of the images that the model drew can be used"),
        ({"train": 30, "val": 5}, ("above",), "all 35 images that can be used show the same relation, 'above'"),
    ],
)
def test_too_few_images(stage: Any, tmp_path: Path, splits: Any, labels: Any, text: str) -> None:
    stage.splits, stage.labels = splits, labels
    with pytest.raises(DataError, match=text) as refusal:
        fit_model.fit(config(tmp_path), progress=False)
    assert f"the images are kept in {tmp_path / 'collection'}" in str(refusal.value)
    assert (tmp_path / "collection" / "manifest.json").is_file() and not (tmp_path / FILES[0]).exists()


def test_a_classifier_that_reads_the_words_is_worth_a_warning() -> None:
    def warned(named: float, contrast: bool) -> list[str]:
        facts = {"counts": {"pictures": {"train": 300}}, "drawn": {"contrast": contrast}}
        manifest: Any = type("Manifest", (), facts)
        probe = {"names_prompted_word": named, "by_chance": 0.05, "rows": 60}
        return fit_model.warnings_of(manifest, {"val": {"pictures": 30, "leakage": {"both": probe}}}, None)

    assert warned(0.14, False) == []
    (text,) = warned(0.16, False)
    assert "0.11 more often than by chance, on 30 held-out images" in text and "run with --contrast" in text
    assert "--contrast" not in warned(0.16, True)[0]


def test_leakage_that_cannot_be_measured_is_no_zero(stage: Any, run: Any, tmp_path: Path) -> None:
    stage.obeys = True  # no prompt names a wrong relation
    words = ("fit", "--model", "sd:emoji", "--trial", 0, "--epochs", 1, "--out", tmp_path, "--no-contrast")
    code, out, err = run(*words)
    assert code == 0, err
    assert "above chance" not in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["leakage"]["above_chance"] is None and report["leakage"]["rows"] == 0
    assert any("not known whether the classifier reads the prompt's words" in text for text in report["warnings"])
    assert "words was not measured" in " ".join((tmp_path / "report.html").read_text().split())
    assert "Leakage probe: not measured" in (tmp_path / "README.md").read_text()


def test_a_run_that_was_stopped_goes_on_and_ends_alike(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_model.fit(config(tmp_path / "whole"), progress=False)
    whole, train = fit_model.add_metrics, fit_model.train
    for name in ("train", "add_metrics", "write_report"):
        with monkeypatch.context() as patch:

            def stop(*arguments: Any, **settings: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(fit_model, name, stop)
            with pytest.raises(KeyboardInterrupt):
                fit_model.fit(config(tmp_path / "stopped"), progress=False)
    assert (fit_model.add_metrics, fit_model.train) == (whole, train)
    fit_model.fit(config(tmp_path / "stopped"), progress=False)
    for name in set(FILES) - {"config.json", "report.html", "report.json"}:
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_folder_with_other_settings_or_files_is_refused(stage: Any, tmp_path: Path) -> None:
    fit_model.fit(config(tmp_path / "fit", epochs=1), progress=False)
    fit_model.fit(config(tmp_path / "fit", epochs=2, batch=3, device="cpu"), progress=False)
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    for change, text in (
        ({"seed": 1}, "holds a run with seed 0, not 1; choose another --out, or remove the folder"),
        ({"objects": str(tmp_path / "names.txt")}, "holds a run with objects None, not 'sha256:"),
        ({"lora": ("one.safetensors",)}, "holds a run with lora [], not ['one.safetensors']"),
    ):
        with pytest.raises(DataError) as refusal:
            fit_model.fit(config(tmp_path / "fit", epochs=1, **change), progress=False)
        assert text in str(refusal.value)
    (tmp_path / "evaluated").mkdir()
    (tmp_path / "evaluated" / "config.json").write_text('{"model": "sd:emoji"}')
    with pytest.raises(DataError, match="holds no classifier of fit"):
        fit_model.fit(config(tmp_path / "evaluated"), progress=False)
    with pytest.raises(DataError, match="the limit is 0"):
        fit_model.fit(config(tmp_path / "none", limit=0), progress=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="choose a new or an empty folder"):
        fit_model.fit(config(tmp_path / "other"), progress=False)
    assert len(stage.collected) == 2


def test_the_plan_is_explained_and_nothing_is_done(run: Any, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\nteddy bear\nkettle\n")
    words = ("fit", "--model", "sd:emoji", "--limit", 0, "--out", tmp_path / "fit", "--no-contrast")
    code, out, err = run(*words)
    assert code == 0, err
    assert not (tmp_path / "fit").exists()
    assert (
        "1000 images in 25 steps" in out
        and "of emoji, for two objects" in out
        and "wrong words     are also read: no" in out
        and "on at most 48 other prompts" in out
    )
    assert "tries           nothing (--trial 0)" in run(*words, "--trial", 0)[1]
    code, out, err = run(*words, "--objects", tmp_path / "names.txt", "--detectors", "owlv2:folder,grounding-dino")
    assert code == 0, err
    assert "3: dog, teddy bear, kettle" in out and "of owlv2:folder and grounding-dino" in out
    code, out, err = run(*words, "--detectors", "emoji,owlv3")
    assert code == 2 and "owlv3" in err


def test_mistakes_are_reported_before_a_model_is_loaded(run: Any, tmp_path: Path) -> None:
    words = ("fit", "--model", "owner/no-such-model", "--out", tmp_path / "fit")
    assert "owlv3" in run(*words, "--detectors", "owlv3")[2]
    assert "none.txt" in run(*words, "--objects", tmp_path / "none.txt")[2]
    assert not (tmp_path / "fit").exists()


def test_the_command(stage: Any, run: Any, tmp_path: Path) -> None:
    words = ("fit", "--model", "sd:emoji", "--trial", 0, "--epochs", 1, "--out", tmp_path, "--no-contrast")
    code, out, err = run(*words)
    assert code == 0, err
    assert "208 images, of which 200 can be used" in out and f"--classifier {tmp_path}" in out
    assert stage.collected[0].contrast is False and stage.collected[0].limit == 1000
    stage.splits = {"train": 4, "val": 1}
    code, out, err = run(*words[:-3], "--out", tmp_path / "few")
    assert code == 2 and len([line for line in err.splitlines() if line.startswith("error:")]) == 1
