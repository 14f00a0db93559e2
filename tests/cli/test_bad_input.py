"""Bad input ends with exit code 2 and one clear line, without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DOG = "a dog to the left of a cat"


def assert_refused(outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["generate", DOG, "--model", "sd:emojy"], ["sd:emojy", "did you mean 'sd:emoji'"]),
        (["generate", DOG, "--model", "./no/such/folder"], ["./no/such/folder", "does not exist"]),
        (["generate", DOG, "--model", ""], ["--model", "empty"]),
        (["score", "missing"], ["missing", "does not exist"]),
        (["generate", ""], ["empty"]),
        (["generate"], ["no prompt"]),
        (["generate", DOG, "--relation", "dog | near | cat"], ["near", "unknown predicate"]),
        (["generate", DOG, "--relation", "dog left of cat"], ["dog | left of | cat"]),
        (["generate", DOG, "--relation", "cow | above | cat"], ["'cow' is not in the prompt"]),
        (["generate", DOG, "a cow", "--relation", "dog | above | cat"], ["one prompt"]),
        (["generate", "a dog", "--strict"], ["no spatial relation", "'a dog'"]),
        (["generate", DOG, "--profile", "defualt"], ["defualt", "default, equal, official"]),
        (["generate", DOG, "--objective", "for-spatal"], ["did you mean 'for-spatial'"]),
        (["generate", DOG, "--set", "refinement=[0.2, 20]"], ["refinement", "[[0.2, 20, 0.5]]"]),
        (["generate", DOG, "--set", "update=noise"], ["update", "'latents' or 'prediction'"]),
        (["generate", DOG, "--set", "search=5"], ["search", "[5, 10, 50]"]),
        (["generate", DOG, "--set", "treshold=0.5"], ["treshold", "threshold"]),
        (["generate", DOG, "--set", "threshold"], ["name=value"]),
        (["generate", DOG, "--set", "threshold=abc"], ["threshold", "'abc'", "number"]),
        (["generate", DOG, "--set", "passes=-1"], ["passes", "-1", "greater than or equal to 0"]),
        (["generate", DOG, "--set", "passes=1.5"], ["passes", "1.5", "integer"]),
        (["generate", DOG, "--set", "rate=-1"], ["rate", "greater than or equal to 0"]),
        (["generate", DOG, "--set", 'normalised="no"'], ["normalised", "'no'", "boolean"]),
        (["generate", DOG, "--set", "search=[1, 2, 3.5]"], ["search[2]", "3.5"]),
        (["generate", DOG, "--seed", "-1"], ["Invalid value for '--seed'"]),
        (["collect", "--seed", "-1", "--out", "maps"], ["Invalid value for '--seed'"]),
        (["generate", DOG, "--images", "0"], ["--images"]),
        (["generate", DOG, "--sed", "1"], ["--sed"]),
        (["generate", DOG, "--config", "missing.yaml"], ["missing.yaml"]),
        (["generate", DOG, "--dtype", "bf16"], ["bf16", "bfloat16"]),
        (["generate", DOG, "--device", "cpu", "--offload", "model"], ["--offload", "GPU"]),
        (["generate", DOG, "--lora", "./no/such.safetensors"], ["LoRA", "no/such.safetensors"]),
        (["generate", DOG, "--checkpointing", "maybe"], ["maybe", "auto, on, off"]),
        (["generate", DOG, "--quantize", "3bit"], ["3bit", "8bit, 4bit"]),
        (["evaluate", "--benchmark", "geneval-positon"], ["did you mean 'geneval-position'"]),
        (["evaluate"], ["geneval-position"]),
        (["evaluate", "--benchmark", "geneval-colors"], ["emoji tells no colours", "geneval-counting"]),
        (["evaluate", "--benchmark", "t2i-compbench-spatial"], ["spatial_val.txt", "--data download"]),
        (["evaluate", "--benchmark", "ood", "--data", "x.txt"], ["reads no file"]),
        (["export-prompts", "--benchmark", "oood", "--out", "sets"], ["did you mean 'ood'"]),
        (["export-prompts", "--data", "missing.txt", "--out", "sets"], ["missing.txt", "No such file"]),
        (["evaluate", "--prompts", "missing.jsonl"], ["missing.jsonl"]),
        (["evaluate", "--benchmark", "unseen", "--detector", "emojis"], ["did you mean 'emoji'"]),
        (["evaluate", "--benchmark", "unseen", "--model", "sd:1.4"], ["--detector", "sd:1.4", "mask2former"]),
        (["evaluate", "--benchmark", "unseen", "--model", "sd:emojo"], ["did you mean 'sd:emoji'"]),
        (["collect", "--source", "emojy", "--out", "maps"], ["did you mean 'emoji'"]),
        (["collect", "--inversion", "nois", "--out", "maps"], ["did you mean 'noise'"]),
        (["train", "--data", "missing", "--out", "classifier"], ["missing"]),
        (["train", "--data", "missing", "--out", "classifier", "--prompts", "false"], ["both, true"]),
        (["parse", " "], ["empty"]),
        (["list", "modles"], ["did you mean 'models'"]),
        (["lst"], ["lst"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(run, argv, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*argv), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed: 1\n", ["sed", "did you mean 'seed'"]),
        ("- seed\n", ["option: value"]),
        ("seed: [\n", ["YAML"]),
        ("seed: many\n", ["seed", "integer"]),
        ("prompt: {a: b}\n", ["prompt", "list of values"]),
        ("seed: [1, 2]\n", ["seed", "one value"]),
        ("set: {treshold: 0.5}\n", ["treshold", "threshold"]),
        ("setting: [passes=many]\n", ["passes", "'many'"]),
        ("set: {rate: 1e-3, loss_targets: [1e-5, 3e-5], passes: many}\n", ["passes", "'many'"]),
        ("false\n", ["option: value"]),
        ("\nsed: 1\n", ["line 2", "sed", "did you mean 'seed'"]),
        ("seed: true\n", ["line 1", "seed cannot be True", "integer"]),
        ("seed: 1.5\n", ["line 1", "seed cannot be 1.5", "integer"]),
        ("seed: 2001-01-01\n", ["line 1", "seed cannot be", "integer"]),
        ("\ufeffseed: -1\r\n", ["line 1", "seed cannot be -1"]),
        ("seed: -1\n", ["line 1", "seed cannot be -1", "at least 0"]),
        ("seed: 1\nimages: 0\n", ["line 2", "images cannot be 0", "at least 1"]),
        ("guidance: high\n", ["line 1", "guidance cannot be 'high'", "number"]),
        ("guidance: yes\n", ["line 1", "guidance cannot be True", "number"]),
        ("out: yes\n", ["line 1", "out cannot be True", "quotes"]),
        ("prompt: [2001-01-01 10:00:00]\n", ["line 1", "prompt cannot be", "quotes"]),
        ("strict: 5\n", ["line 1", "strict cannot be 5", "true or false"]),
        ("loss: learned\nobjective: none\n", ["line 2", "objective is given twice"]),
        ("seed: 1\nseed: 2\n", ["line 2", "seed is given twice"]),
        ("set: &a [*a]\n", ["line 1", "contains itself"]),
        (f"set: {{threshold: '{'[' * 5000}'}}\n", ["nested"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_config_file(run, config, text, words):
    config.write_text(text)
    assert_refused(run("generate", DOG, "--config", config), "" if "set" in text else str(config), *words)


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000], ids=["deep", "digits"])
def test_settings_that_cannot_be_parsed(run, value):
    assert_refused(run("generate", DOG, "--set", f"threshold={value}"), "the setting threshold")


@pytest.mark.parametrize(
    "verb",
    [
        ["generate", DOG],
        ["evaluate", "--benchmark", "unseen", "--limit", "1"],
        ["collect", "--limit", "1"],
        ["train", "--data", "maps"],
        ["export-prompts", "--benchmark", "ood"],
        ["score", "pictures", "--benchmark", "unseen", "--detector", "emoji"],
        ["import-official", "foreign.pth", "--model", "flux:schnell"],
    ],
    ids=lambda verb: verb[0],
)
def test_out_that_is_a_file(run, verb, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for out in (taken, taken / "below"):
        assert_refused(run(*verb, "--out", out), "taken")
    assert_refused(run(*verb, "--out", tmp_path / ("long" * 80)), "--out", "too long")
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


def test_a_relation_that_was_never_learned(run, model, tmp_path):
    out = tmp_path / "out"
    asked = ["generate", DOG, *model, "--relation", "dog | above left of | cat", "--out", out]
    assert_refused(run(*asked), "'above left of'", "it can: above, below, left of, right of")
    assert not out.exists()


def test_foreign_classifier(run, saved_sd, tmp_path):
    from learn_to_steer import classifier

    own = classifier.load(saved_sd / "classifier")
    *layers, last = own.config.layout["layers"]
    layout = own.config.layout | {"layers": [*layers, last | {"name": "other.attn2"}]}
    values = {name: getattr(own.config, name) for name in own.config.__dataclass_fields__}
    classifier.save(classifier.RelationClassifier(classifier.ClassifierConfig(**values | {"layout": layout})), tmp_path)
    out = tmp_path / "out"
    base = ["generate", DOG, "--model", saved_sd, "--out", out]
    assert_refused(run(*base, "--classifier", tmp_path), "classifier", "trained for this model")
    assert_refused(run(*base, "--classifier", tmp_path / "missing"), "missing", "does not exist")
    assert_refused(
        run(*base, "--classifier", saved_sd / "unet" / "diffusion_pytorch_model.safetensors"), "not a relation"
    )
    assert_refused(run(*base), "--classifier")
    assert not out.exists()


def test_scheduler_that_would_lose_the_steering(run, model, tmp_path):
    assert_refused(run("generate", DOG, *model, "--scheduler", "PNDMScheduler"), "PNDMScheduler", "DDIMScheduler")
    assert_refused(run("generate", DOG, *model, "--scheduler", "DDIMSchedulr"), "did you mean 'DDIMScheduler'")
    assert_refused(run("generate", DOG, *model, "--height", "60"), "multiple of 8")
    assert_refused(run("generate", DOG, *model, "--device", "gpu"), "gpu")


def test_folder_that_is_no_model(run, tmp_path):
    assert_refused(run("generate", DOG, "--model", tmp_path), "model_index.json")


def test_prompt_file_with_a_mistake(run, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": DOG, "relations": [["dog", "near", "cat"]]}) + "\n")
    assert_refused(run("evaluate", "--prompts", prompts), "row 1", "near")


def test_a_long_prompt_is_cut_in_the_message(run, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "a dog " * 10_000}))
    told = run("evaluate", "--prompts", prompts, "--out", tmp_path / "out")
    assert_refused(told, "row 1: no spatial relation", "give 'relations'")
    assert len(told.err) < 1100


def test_debug_shows_the_traceback(run):
    outcome = run("parse", " ", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("error: ")
