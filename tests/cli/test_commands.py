"""What the verbs print and write."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

DOG = "a dog to the left of a teddy bear"
GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def test_parse_prints_json(run):
    outcome = run("parse", DOG, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == {
        "relations": [["dog", "left of", "teddy bear"]],
        "spans": [[[2, 5], [23, 33]]],
        "passed_over": [],
        "warning": "",
    }
    found = json.loads(run("parse", "a dog, a glow over the sea", "--json").out)
    assert found["relations"] == []
    assert found["passed_over"] == [{"wording": "over", "span": [14, 18], "reason": "cannot be placed", "noun": "glow"}]


def test_parse_shows_where_and_what_was_passed_over(run):
    prompt = "a cat below and to the right of a pizza, a coin at the bottom of a drawer"
    assert run("parse", prompt).out.splitlines() == [
        "cat | below right of | pizza",
        "    cat: characters 2 to 5, pizza: characters 34 to 39",
        "passed over: at the bottom of (in or on it: drawer)",
        "    characters 48 to 64",
    ]


@pytest.mark.parametrize("argv", [("parse",), ("generate", "a dog", "--strict")])
def test_what_is_found_in_a_long_prompt_is_to_be_checked(run, argv):
    outcome = run(*argv, "a cat above a dog" + ", soft light and fine detail" * 12)
    assert "warning: the prompt has" in outcome.err
    assert "cat | above | dog" in outcome.err


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("models", "sd:emoji"),
        ("benchmarks", "multi-relation-unseen-5-3"),
        ("benchmarks", "t2i-compbench-four-relations"),
        ("benchmarks", "visor-1000"),
        ("objectives", "learned"),
        ("objectives", "for-spatial"),
        ("detectors", "emoji"),
        ("sources", "emoji"),
        ("schedulers", "DDIMScheduler"),
    ],
)
def test_list(run, kind, name):
    outcome = run("list", kind)
    assert outcome.code == 0
    assert name in [line.split()[0] for line in outcome.out.splitlines()]


def test_export_prompts(run, tmp_path):
    told = run("export-prompts", "--benchmark", "geneval_position", "--benchmark", "ood", "--out", tmp_path / "sets")
    assert told == (0, f"geneval-position: 100 prompts\nood: 200 prompts\nWritten to {tmp_path / 'sets'}\n", "")
    files = {f"{name}.{kind}" for name in ("geneval-position", "ood") for kind in ("jsonl", "txt")}
    assert {path.name for path in (tmp_path / "sets").iterdir()} == files | {"manifest.json"}


def test_evaluate_prints_the_benchmarks_own_numbers(run, monkeypatch):
    numbers = {"overall": 0.25, "tasks": {"counting": 0.5, "colors": None}, "visor_4": None}
    summary = {
        "accuracy": 0.5,
        "accuracy_interval": [0.4, 0.6],
        "images": 8,
        "both_present": 1.0,
        "each_once": 0.25,
        "accuracy_where_present": 0.5,
        "metrics": numbers,
        "per_relation": {"above": {"accuracy": 1.0}, "below": {"accuracy": None}},
        "failures": {"missing": 3, "wrong side": 1},
        "passes_per_image": 0.0,
        "seconds_per_image": 0.0,
    }
    monkeypatch.setattr("learn_to_steer.evaluation.evaluate", lambda config, progress: summary)
    told = run("evaluate", "--benchmark", "geneval").out
    assert "\nall objects present 1.000, of those correct 0.500; each exactly once 0.250\n" in told
    assert "\nabove 1.000, below -\nwrong: missing 3, wrong side 1\n" in told
    assert "\noverall 0.250\ntasks counting 0.500, colors -\nvisor 4 -\n" in told


def test_version(run):
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("learn-to-steer ")


def test_generate_writes_pictures_pages_and_reports(run, model, tmp_path):
    out = tmp_path / "out"
    outcome = run(
        "generate", DOG, "a lone dog", *model, "--images", "2", "--seed", "3", "--set", "passes=1", "--out", out
    )
    assert outcome.code == 0
    assert "warning: no spatial relation found in 'a lone dog'" in outcome.err
    pictures = {f"{kind}-{p:02d}-{i:02d}.png" for kind in ("base", "steered") for p in (0, 1) for i in (0, 1)}
    assert {path.name for path in out.iterdir()} == pictures | {"compare.png", "maps.png", "report.json", "config.json"}
    assert Image.open(out / "steered-00-01.png").size == (64, 64)
    assert (out / "base-00-00.png").read_bytes() != (out / "steered-00-00.png").read_bytes()
    assert (out / "base-01-00.png").read_bytes() == (out / "steered-01-00.png").read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["images"], config["prompts"]) == (3, 2, [DOG, "a lone dog"])
    report = json.loads((out / "report.json").read_text())
    first = report["prompts"][0]
    assert first["relations"] == [["dog", "left of", "teddy bear"]]
    assert [image["steered"] for image in first["images"]] == ["steered-00-00.png", "steered-00-01.png"]
    steering = first["images"][0]["steering"]
    assert 0 < steering["probability"][0] < 1
    assert steering["passes"] >= 1


def test_generate_without_steering_and_from_a_config_file(run, saved_sd, tmp_path):
    """The file gives the defaults, the command line wins, and the noise is that of the steered call's base."""
    out, file = tmp_path / "out", tmp_path / "run.yaml"
    values = {
        "prompt": DOG,
        "model": str(saved_sd),
        "steer": False,
        "steps": 2,
        "seed": 9,
        "height": 96,
        "out": str(out),
    }
    file.write_text(json.dumps(values))
    outcome = run("generate", "--config", file, "--seed", "4")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in out.glob("*.png")} == {"base-00-00.png", "compare.png", "maps.png"}
    assert Image.open(out / "base-00-00.png").size == (64, 96)
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["objective"], config["height"]) == (4, "none", 96)


def test_a_baseline_needs_no_classifier_and_keeps_its_schedule(run, saved_sd, tmp_path):
    base = ["generate", DOG, "--model", saved_sd, "--steps", "4", "--objective", "FOR_spatial"]
    outcome = run(*base, "--out", tmp_path / "published")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "published" / "report.json").read_text())
    assert [step["passes"] for step in report["prompts"][0]["images"][0]["steering"]["steps"]] == [1, 1]
    assert "classifier" not in report["fingerprints"]
    outcome = run(*base, "--profile", "equal", "--set", "passes=3", "--set", "threshold=2", "--out", tmp_path / "equal")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "equal" / "report.json").read_text())
    assert {step["passes"] for step in report["prompts"][0]["images"][0]["steering"]["steps"]} == {3}
    refused = run(*base, "--classifier", saved_sd / "classifier", "--out", tmp_path / "none")
    assert refused.code == 2 and "uses no classifier" in refused.err


def test_explicit_relation_overrides_the_prompt(run, model, tmp_path):
    out = tmp_path / "out"
    outcome = run("generate", DOG, *model, "--set", "passes=1", "--relation", "teddy bear | above | dog", "--out", out)
    assert outcome.code == 0, outcome.err
    report = json.loads((out / "report.json").read_text())
    assert report["prompts"][0]["relations"] == [["teddy bear", "above", "dog"]]
    assert report["prompts"][0]["images"][0]["steering"]["relations"] == [["teddy bear", "above", "dog"]]


def test_collect_then_train(run, saved_sd, tmp_path):
    maps, out = tmp_path / "maps", tmp_path / "classifier"
    options = ["--model", saved_sd, "--limit", "20", "--quality", "1e9", "--seed", "1"]
    collected = run("collect", *options, "--out", maps)
    assert collected.code == 0, collected.err
    assert json.loads((maps / "config.json").read_text())["limit"] == 20
    assert run("collect", *options, "--out", maps).code == 0
    trained = run("train", "--data", maps, "--out", out, "--epochs", "1", "--width", "16")
    assert trained.code == 0, trained.err
    assert json.loads((out / "config.json").read_text())["width"] == 16
    assert (out / "relation_classifier.safetensors").is_file()


def test_images_are_scored_where_a_detector_knows_them(run, model, tmp_path, monkeypatch):
    from learn_to_steer.cli import prompt_images
    from learn_to_steer.evaluation import Scorer
    from learn_to_steer.geometry import Detection

    class LeftDog:
        name = "stub"

        def detect(self, shown, asked=None):
            return [[Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))] for _ in shown]

    opened = prompt_images.open_model

    def with_detector(config):
        found = opened(config)
        return replace(found, variant=replace(found.variant, detector="stub"))

    monkeypatch.setattr(prompt_images, "open_model", with_detector)
    monkeypatch.setattr(prompt_images, "load_scorer", lambda name: Scorer(LeftDog(), {"dog": "dog", "cat": "cat"}))
    prompts = ["a dog to the left of a cat", "a dog below a cat", "a dog below a cow"]
    outcome = run("generate", *prompts, *model, "--set", "passes=1", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    correct, wrong, unknown, explained, last = outcome.out.splitlines()
    assert correct.startswith("a dog to the left of a cat: base correct, steered correct, ")
    assert "base wrong (wrong side: dog below cat (is left of))" in wrong
    assert unknown.startswith(
        "a dog below a cow: not checked (the detector does not know cow), 1 iterations, classifier's estimate "
    )
    assert "does not tell what an image shows" in explained
    assert last == f"See {tmp_path / 'out' / 'compare.png'}"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    verdicts = [entry["images"][0]["steered_verdict"] for entry in report["prompts"]]
    assert [verdict and verdict["correct"] for verdict in verdicts] == [True, False, None]
    seen = [entry["images"][0]["steered_seen"] for entry in report["prompts"]]
    assert seen == [
        {"objects": {"cat": True, "dog": True}, "relations": [True]},
        {"objects": {"cat": True, "dog": True}, "relations": [False]},
        {"objects": {"cow": None, "dog": True}, "relations": [None]},
    ]


@pytest.fixture
def golden_model(tmp_path):
    """A folder with the golden UNet where a pipeline keeps it."""
    shutil.copytree(GOLDEN / "sd_unet", tmp_path / "model" / "unet")
    return tmp_path / "model"


def test_import_official(run, golden_model, tmp_path):
    from diffusers import UNet2DConditionModel

    from learn_to_steer.classifier import import_official, load, read_official
    from learn_to_steer.families.sd import FAMILY

    out = tmp_path / "classifier"
    told = run("import-official", GOLDEN / "sd_classifier.pth", "--model", golden_model, "--out", out)
    assert told.code == 0 and "above, below, is, left of, right of" in told.out
    assert "base_model" not in (out / "README.md").read_text()  # a folder has no page on the hub
    mine, theirs = load(out), read_official(GOLDEN / "sd_classifier.pth")
    layout = FAMILY.layout(UNet2DConditionModel.from_pretrained(GOLDEN / "sd_unet"))
    assert mine.layout == layout
    import_official(GOLDEN / "sd_classifier.pth", layout, tmp_path / "hub", data={"base_model": "owner/base"})
    assert "base_model: owner/base" in (tmp_path / "hub" / "README.md").read_text()
    maps, row = torch.rand(2, 2, layout.channels, 16, 16), torch.tensor([5, 10])
    torch.testing.assert_close(mine(maps, row), theirs(maps, row))


def test_import_official_refuses_foreign_files(run, golden_model, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "foreign.pth")
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    for name, word in (("foreign.pth", "not a relation classifier"), ("broken.pth", "not a checkpoint")):
        told = run("import-official", tmp_path / name, "--model", golden_model, "--out", tmp_path / "out")
        assert told.code == 2 and word in told.err and len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_import_official_refuses_files_of_other_models(run, tmp_path):
    known = torch.load(GOLDEN / "sd_classifier.pth", weights_only=True)
    broken = {
        "steps": ({}, "sd:emoji", "but this model uses 25"),
        "trained": ({"training_config": {"timesteps": [5, 500]}}, "sd:1.4", "are not among its 50 steps"),
        "classes": ({"idx_to_rel_name": {0: "foo", 1: "bar", 2: "is", 3: "x", 4: "y"}}, "sd:1.4", "foo, bar"),
        "tables": ({"rel_name_to_idx": dict.fromkeys(known["idx_to_rel_name"].values(), 0)}, "sd:1.4", "contradict"),
    }
    for name, (change, model, told) in broken.items():
        torch.save(known | change, tmp_path / f"{name}.pth")
        outcome = run("import-official", tmp_path / f"{name}.pth", "--model", model, "--out", tmp_path / "out")
        assert outcome.code == 2 and told in outcome.err, name
    assert not (tmp_path / "out" / "relation_classifier.safetensors").exists()


def test_doctor_tries_an_iteration(run, saved_sd):
    told = run("doctor", "--model", saved_sd)
    assert told.code == 0
    lines = {line[:16].strip(): line[16:] for line in told.out.splitlines()}
    assert lines["torch"] == torch.__version__.split("+")[0] or lines["torch"] == torch.__version__
    assert (
        f"{saved_sd}: 7 attention layers, 14 maps" in lines["model"] and "gradient is finite" in lines["one iteration"]
    )
    assert "median, after a warm-up" in lines["one iteration"]
    assert told.out.endswith("can be steered on this machine\n")
    assert told.err == ""


def test_doctor_names_the_remedy(run, saved_sd):
    told = run("doctor", "--model", saved_sd, "--scheduler", "PNDMScheduler")
    assert told.code == 2 and "--scheduler DDIMScheduler" in told.err


@pytest.mark.slow
def test_a_pipeline_without_callbacks_says_what_is_missing(run, tmp_path) -> None:
    from learn_to_steer.families.testing import tiny

    tiny("pixart").save_pretrained(tmp_path / "model")
    options = ("--steps", "2", "--loss", "for-spatial", "--height", "64", "--width", "64", "--out", tmp_path / "out")
    outcome = run("generate", "a dog to the left of a cat", "--model", tmp_path / "model", *options)
    assert outcome.code == 0, outcome.err
    told = "PixArtSigmaPipeline takes no callback_on_step_end, so progress is not shown and maps.png is not made"
    assert told in " ".join(outcome.err.split())
    assert (tmp_path / "out" / "compare.png").is_file() and not (tmp_path / "out" / "maps.png").exists()
