"""Options: those of version 0.1 are all there, each is declared once, and better names are understood everywhere."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from learn_to_steer import configs
from learn_to_steer.cli.application import app
from learn_to_steer.cli.generating import GenerateOptions
from learn_to_steer.cli.making import CollectOptions, TrainOptions
from learn_to_steer.families import usual_source

# Recorded from the command line of version 0.1: by verb and by name in --config files.
RECORDED = json.loads((Path(__file__).parent / "options_0_1.json").read_text())
COMMANDS = typer.main.get_command(app).commands
CASES = [(verb, name) for verb, parameters in RECORDED.items() for name in parameters]
DOG = "a dog to the left of a cat"


def parameter(verb: str, name: str) -> Any:
    """The parameter of that name in files: its own name, or one of its options."""
    found = [p for p in COMMANDS[verb].params if p.name == name]
    found += [p for p in COMMANDS[verb].params if f"--{name.replace('_', '-')}" in p.opts]
    assert found, f"{verb} has no {name}"
    return found[0]


def test_every_verb_is_there() -> None:
    assert set(RECORDED) <= set(COMMANDS)


@pytest.mark.parametrize(("verb", "name"), CASES, ids=" ".join)
def test_every_recorded_option_is_there_with_its_default(verb: str, name: str) -> None:
    recorded, now = RECORDED[verb][name], parameter(verb, name)
    assert set(recorded["opts"]) <= {*now.opts, *now.secondary_opts}
    if (verb, name) == ("collect", "source"):  # now the model's own; that of the default model, where it has none
        assert now.default is None and usual_source("sd:emoji") == usual_source("sd:1.4") == recorded["default"]
    elif (verb, name) == ("collect", "inversion"):  # now that of the source: the recorded one where it has images
        assert now.default is None and recorded["default"] == "noise"
    else:
        assert now.default == recorded["default"]
    assert bool(getattr(now, "multiple", False)) == recorded["multiple"]
    assert now.required == recorded["required"]


@pytest.mark.parametrize("config", [GenerateOptions, configs.EvaluateConfig, configs.ScoreConfig])
def test_every_setting_is_an_option(config: type[Any]) -> None:
    verb = {GenerateOptions: "generate", configs.EvaluateConfig: "evaluate", configs.ScoreConfig: "score"}[config]
    assert len(COMMANDS[verb].params) == len(fields(config)) + 2  # --config, --debug


def test_options_are_grouped() -> None:
    panels = {getattr(p, "rich_help_panel", None) for p in COMMANDS["generate"].params}
    assert {"Model", "Sampling", "Steering", "Output"} <= panels
    for verb in ("collect", "evaluate", "train"):
        loose = [p.name for p in COMMANDS[verb].params if not getattr(p, "rich_help_panel", None)]
        assert set(loose) <= {"config", "debug", "help", "data"}, verb


def test_no_options_are_lost_between_configs() -> None:
    assert {f.name for f in fields(CollectOptions)} > {f.name for f in fields(configs.CollectSettings)}
    assert {f.name for f in fields(TrainOptions)} > {f.name for f in fields(configs.TrainSettings)}


@pytest.mark.parametrize("option", ["--loss", "--objective"])
def test_both_names_of_the_loss(run, saved_sd, tmp_path, option) -> None:
    out = tmp_path / "out"
    outcome = run("generate", DOG, "--model", saved_sd, "--steps", "2", option, "for-spatial", "--out", out)
    assert outcome.code == 0, outcome.err
    assert json.loads((out / "config.json").read_text())["objective"] == "for-spatial"


@pytest.mark.parametrize("key", ["loss", "objective"])
@pytest.mark.parametrize("settings", ['set: {"passes": 1}', 'set: {"iterations": 1}', "setting: [passes=1]"])
def test_both_names_in_files(run, saved_sd, tmp_path, key, settings) -> None:
    file, out = tmp_path / "run.yaml", tmp_path / "out"
    file.write_text(f"prompt: {DOG}\nmodel: {saved_sd}\nsteps: 2\n{key}: infsplign\n{settings}\nout: {out}\n")
    outcome = run("generate", "--config", file)
    assert outcome.code == 0, outcome.err
    config = json.loads((out / "config.json").read_text())
    assert (config["objective"], config["steering"]["passes"]) == ("infsplign", 1)
    assert "iterations" not in config["steering"] and "checkpointing" not in config["steering"]


def test_values_of_files_that_mean_one_thing_only(run, saved_sd, tmp_path) -> None:
    """A whole number with a point, a date as a text, 1 for true, a number in quotes, and nothing for the default."""
    file, out = tmp_path / "run.yaml", tmp_path / "2001-01-31"
    options = f"model: {saved_sd}\nsteps: 2.0\nseed: '3'\nstrict: 1\nloss: none\nlora:\nprofile:\n"
    file.write_text(f"prompt: {DOG}\n{options}out: {out}\nrevision: 2001-01-31\n")
    outcome = run("generate", "--config", file)
    assert outcome.code == 0, outcome.err
    config = json.loads((out / "config.json").read_text())
    kept = {name: config[name] for name in ("steps", "seed", "strict", "revision", "profile")}
    assert kept == {"steps": 2, "seed": 3, "strict": True, "revision": "2001-01-31", "profile": "default"}
