"""Bad values of every option of every verb: exit code 2, one line that names the option, and nothing is written."""

from __future__ import annotations

import json
import os
import socket
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import typer

from learn_to_steer.cli.application import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
DOG = "a dog to the left of a cat"
# Arguments and options that a verb needs before it looks at the others.
NEEDED = {
    "generate": [DOG],
    "collect": ["--out", "maps"],
    "train": ["--data", "maps", "--out", "classifier"],
    "evaluate": ["--benchmark", "unseen"],
    "score": ["images"],
    "audit": ["folder"],
    "report": ["folder"],
    "serve": [],
    "fit": ["--model", "sd:emoji", "--out", "classifier"],
    "verify": ["folder"],
    "parse": [DOG],
    "push": ["folder", "owner/name"],
    "export-prompts": ["--out", "sets"],
    "import-official": ["file.pth", "--model", "sd:1.4", "--out", "classifier"],
    "bench": [],
    "doctor": [],
    "list": ["models"],
}
ESCAPE, RED = "\x1b", "\x1b[31mred"
NUMBERS = ["", "many", "nan", "-1", str(2**64), "9" * 5000, "1e400", "inf", "-inf", "0x10", "\x1b[31m1"]
NAMES = [
    "",
    "  ",
    RED,
    "a\nb",
    "a\0b",
    "a\x9bb",
    "x" * 300,
    "folder/" + "x" * 300,
    "x" * 5000,
    "a\udcffb",
    "~no-such-user/a",
]
# Prompts, relations and settings may have any characters and lengths, and verbs check them further.
FREE = ["", "  ", "a\udcffb"]
FREE_NAMES = ("prompt", "relations", "setting")
CHOICES = ["", "sideways", RED, "both,true", "a\0b", "a\udcffb"]


class Option(NamedTuple):
    """An option or argument that takes a value."""

    verb: str
    name: str
    parameter: Any
    kind: Any
    info: Any

    @property
    def is_number(self) -> bool:
        return bool({int, float} & {self.kind, *get_args(self.kind)})

    @property
    def is_integer(self) -> bool:
        return int in (self.kind, *get_args(self.kind))

    @property
    def has_choices(self) -> bool:
        return (self.verb, self.name) in {("collect", "reduce"), ("collect", "softmax"), ("train", "prompts")}

    @property
    def bad_values(self) -> list[str]:
        if self.is_number:
            return [*NUMBERS, "1.5"] if self.is_integer else NUMBERS
        if self.name in FREE_NAMES:
            return FREE
        return CHOICES if self.has_choices else NAMES


def options() -> list[Option]:
    """Every option and argument that takes a value."""
    listed = []
    for registered in app.registered_commands:
        declared = signature(registered.callback).parameters
        for parameter in COMMANDS[registered.name].params:
            if not getattr(parameter, "is_flag", False):
                kind, info = get_args(declared[parameter.name].annotation)
                listed.append(Option(registered.name, parameter.name, parameter, kind, info))
    return listed


OPTIONS = options()


def command_line(option: Option, value: str) -> list[str]:
    verb, parameter = option.verb, option.parameter
    needed = list(NEEDED[verb])
    if parameter.param_type_name == "argument":
        arguments = [p for p in COMMANDS[verb].params if p.param_type_name == "argument"]
        needed[arguments.index(parameter)] = value
        return [verb, "--", *needed] if not any(word.startswith("--") for word in needed) else [verb, *needed]
    if parameter.opts[0] in needed:
        needed[needed.index(parameter.opts[0]) + 1] = value
        return [verb, *needed]
    return [verb, *needed, f"{parameter.opts[0]}={value}"]


def test_what_a_verb_needs_is_listed_here() -> None:
    assert set(NEEDED) == set(COMMANDS)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.verb} {option.name}")
def test_bad_values_are_refused(run: Any, option: Option, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for value in option.bad_values:
        outcome = run(*command_line(option, value))
        lines = outcome.err.splitlines()
        assert (outcome.code, outcome.out, len(lines)) == (2, "", 1), (value[:40], outcome)
        assert lines[0].startswith("error: ") and lines[0].isprintable(), lines[0]
        if option.name not in FREE_NAMES:
            hints = (*option.parameter.opts, option.name, str(option.parameter.metavar))
            assert any(hint in lines[0] for hint in hints), (value[:40], lines[0])
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.verb} {option.name}")
def test_every_number_has_bounds(option: Option) -> None:
    if option.is_number:
        low, high = option.info.min, option.info.max
        assert low is not None and high is not None and 0 <= low < high < 2**63
        assert option.parameter.default is None or low <= option.parameter.default <= high


@pytest.mark.parametrize("verb", COMMANDS)
def test_flags_take_no_value(run: Any, verb: str) -> None:
    for parameter in COMMANDS[verb].params:
        if getattr(parameter, "is_flag", False) and parameter.name != "help":
            outcome = run(verb, *NEEDED[verb], f"{parameter.opts[0]}=maybe")
            assert outcome.code == 2 and len(outcome.err.splitlines()) == 1


def test_a_tilde_is_the_home_of_the_user(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("export-prompts", "--benchmark", "ood", "--out=~/sets").code == 0
    assert (tmp_path / "sets" / "ood.txt").is_file()


PROMPTS = ["evaluate", "--prompts", "FILE"]
READERS = [
    ["generate", DOG, "--config", "FILE"],
    PROMPTS,
    ["evaluate", "--benchmark", "t2i-compbench-spatial", "--data", "FILE"],
    ["export-prompts", "--data", "FILE", "--out", "sets"],
    ["collect", "--source", "folder", "--data", "FILE", "--out", "maps"],
    ["collect", "--source", "coco", "--data", "FILE", "--out", "maps"],
    ["collect", "--source", "gqa", "--data", "FILE", "--out", "maps"],
    ["collect", "--source", "image-generation-cot", "--data", "FILE", "--out", "maps"],
    ["import-official", "FILE", "--model", "sd:1.4", "--out", "classifier"],
    ["audit", "evaluation", "--labels", "FILE"],
]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((kind, PROMPTS) for kind in ("device", "folder", "socket", "link")),
        *(("pipe", words) for words in READERS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_special_files_are_refused_at_once(
    run: Any, words: list[str], kind: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluation").mkdir()
    if kind in ("pipe", "link"):
        os.mkfifo("pipe")
    if kind == "link":
        Path("link").symlink_to("pipe")
    elif kind == "device":
        Path("device").symlink_to("/dev/zero")
    elif kind == "folder":
        Path("folder").mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    before = sorted(os.listdir())
    outcome = run(*(kind if word == "FILE" else word for word in words))
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1), outcome
    assert kind in outcome.err and "file" in outcome.err
    assert sorted(os.listdir()) == before


HOSTILE = "a \x1b[31mdog\x07 to the left\u202e of a \x9bcat"


def test_control_characters_of_prompts_are_never_printed(run: Any, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a \\u001b[31mdog", "relations": []}\n')
    for words in (
        ["parse", HOSTILE],
        ["parse", HOSTILE, "--json"],
        ["generate", "a \x1b[31mdog", "--strict"],
        ["generate", DOG, "--relation", f"dog | \x1b[31m{ESCAPE} | cat"],
        ["generate", DOG, "--set", f"{RED}=1"],
        ["evaluate", "--prompts", str(prompts)],
        ["list", RED],
        [RED],
        ["list", f"--{RED}"],
    ):
        outcome = run(*words)
        for line in (outcome.out + outcome.err).splitlines():
            assert line.isprintable(), words


def test_json_stays_json(run: Any) -> None:
    assert json.loads(run("parse", HOSTILE, "--json").out)["relations"]


def test_half_a_surrogate_pair_in_a_file_of_prompts_is_refused(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for row in ('{"prompt": "a \\ud800 dog left of a cat"}', f'{{"prompt": "{DOG}", "tag": "\\udfff"}}'):
        Path("prompts.jsonl").write_text(row + "\n")
        outcome = run("evaluate", "--prompts", "prompts.jsonl", "--out", "out")
        assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
        assert "row 1" in outcome.err and "Unicode" in outcome.err
        assert os.listdir() == ["prompts.jsonl"]
