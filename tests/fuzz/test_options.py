"""Any value of any option of any verb: success, or one line and exit code 2 with no file written; never a traceback.

The verbs run up to the point at which a model or detector would be loaded.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import byte_edits, edited_bytes, edited_tree, tree_edits, values
from typer.models import OptionInfo

from learn_to_steer.cli import main
from learn_to_steer.cli.application import app
from learn_to_steer.steering import SteeringConfig

PROMPT = "a dog to the left of a cat"
# By verb: its options and arguments, as typer is given them.
COMMANDS = {
    str(one.name): [p for p in signature(one.callback).parameters.values() if get_args(p.annotation)]
    for one in app.registered_commands
}
# What a verb needs, if it is more than names of files; an option that is drawn comes after it and wins.
NEEDED = {
    "generate": [PROMPT],
    "collect": ["--out", "maps"],
    "train": ["--data", "maps", "--out", "classifier"],
    "evaluate": ["--benchmark", "unseen"],
    "score": ["pictures", "--benchmark", "unseen", "--detector", "emoji"],
    "audit": ["evaluation"],
    "parse": [PROMPT],
    "push": ["classifier", "owner/name"],
    "export-prompts": ["--benchmark", "unseen", "--out", "sets"],
    "import-official": ["foreign.pth", "--model", "flux:schnell", "--out", "classifier"],
    "list": ["models"],
}
WHOLE = ("0", "1", "-1", "2", "7", "007", "1_000", "+3", " 3", "1e3", "3.0", "0x10", "\u0663", "", "nan", "None")
HUGE = ("9223372036854775808", "18446744073709551616", "1" + "0" * 400, "9" * 5000, "-18446744073709551616")
REAL = ("0", "-0.0", "0.5", "1e-3", "1e400", "nan", "inf", "-inf", "1e-400", "1,5", "", "0x1p3", "True")
TEXT = (
    "", " ", ".", "..", "~", "~nobody/x", "a" * 300, "x/" * 3000, "\x00", "a\x00b", "\x1b[31mred", "\ud800",
    "\udcff", "犬", "\u202e", "\n", "a\nb", "-", "--", "%s", "{}", "'", "[bold]x[/bold]", "[/x]", "owner/name",
    "sd:emoji", "flux:dev=x", "flux:emoji", "emoji", "none", "auto", "unseen", "noise", "cpu", "cuda:99", "float16",
    "threshold=0.9", "rate=nan", "passes=[[[[", "x=" + "[" * 2000, "dog | left of | cat", "a|b|c", "||", "0.9,0.7",
    "1,,2", "nan,inf", "here", "fifo", "text",
)  # fmt: skip


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Loading(BaseException):
    """The options were accepted: now a model would be loaded."""


def options_of(verb: str) -> list[Parameter]:
    return [p for p in COMMANDS[verb] if isinstance(get_args(p.annotation)[1], OptionInfo)]


def values_of(parameter: Parameter) -> st.SearchStrategy[list[str]]:
    """The words on the command line that give one option or argument some value."""
    kind, info = get_args(parameter.annotation)[:2]
    kinds = {kind, *get_args(kind)}
    words = st.sampled_from(TEXT) | st.text(max_size=8)
    if int in kinds:
        words = st.sampled_from((*WHOLE, *HUGE)) | st.integers().map(str)
    elif float in kinds:
        words = st.sampled_from((*REAL, *HUGE)) | st.floats().map(str)
    if not isinstance(info, OptionInfo):
        return words.map(lambda word: [word])
    declared = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str) and name[:1] == "-"]
    names = [part for name in declared for part in name.split("/")] or [f"--{parameter.name.replace('_', '-')}"]
    if bool in kinds:
        return st.sampled_from([[name] for name in names])
    return words.map(lambda word: [f"{names[0]}={word}"])


@st.composite
def command_lines(draw: Callable[..., Any]) -> list[str]:
    """A verb with what it needs and one to three more options; sometimes with arguments of its own instead."""
    verb = draw(st.sampled_from(sorted(COMMANDS)))
    options = options_of(verb)
    arguments = [parameter for parameter in COMMANDS[verb] if parameter not in options]
    drawn = [draw(values_of(p)) for p in draw(st.lists(st.sampled_from(options), min_size=1, max_size=3))]
    needed = NEEDED.get(verb, ["here"] * len(arguments))
    if arguments and draw(st.integers(0, 5)) == 0:
        needed = [word for p in arguments for word in draw(values_of(p))] + needed[len(arguments) :]
    return [verb, *needed, *(word for words in drawn for word in words)]


def run(argv: list[str]) -> Outcome | None:
    """What the command line does, with its output as a terminal in UTF-8 gets it; None if a model would be loaded."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=how) for how in ("strict", "backslashreplace")]
    try:
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            code = main(argv)
    except Loading:
        return None
    finally:
        for stream in streams:
            stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return Outcome(code, out, err)


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def place(fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, no_network: None) -> Callable[[], Path]:
    """``place()``: the working folder is a new one, with a folder, a file and a pipe in it; nothing heavy is loaded."""
    import huggingface_hub

    import learn_to_steer.cli.collecting as collecting
    import learn_to_steer.cli.image_generation as image_generation
    import learn_to_steer.cli.prompt_images as prompt_images
    import learn_to_steer.distributed as distributed
    import learn_to_steer.evaluation.evaluate_model as evaluate_model
    import learn_to_steer.evaluation.image_batches as image_batches
    import learn_to_steer.evaluation.model as model
    import learn_to_steer.evaluation.score_images as score_images
    import learn_to_steer.fitting.fit_model as fit_model
    import learn_to_steer.loading as loading
    import learn_to_steer.random_models as random_models
    import learn_to_steer.speed.models as models
    import learn_to_steer.training.train_classifier as train_classifier

    def load(*args: Any, **kwargs: Any) -> None:
        raise Loading

    for module in (prompt_images, evaluate_model, image_batches, score_images):
        monkeypatch.setattr(module, "load_scorer", load)
    for module in (prompt_images, image_batches, model):
        monkeypatch.setattr(module, "open_model", load)
    for module in (distributed, image_generation, evaluate_model, score_images, fit_model):
        monkeypatch.setattr(module, "open_workers", load)
    for module in (model, models, collecting, fit_model):
        monkeypatch.setattr(module, "open_pipeline", load)
    for module in (loading, random_models):
        monkeypatch.setattr(module, "skeleton", load)
    monkeypatch.setattr(train_classifier, "fit", load)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", load)

    def make() -> Path:
        folder = fresh()
        (folder / "here").mkdir()
        (folder / "text").write_text("text")
        os.mkfifo(folder / "fifo")
        monkeypatch.chdir(folder)
        return folder

    return make


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command line sets up the logging of the process."""
    import logging

    log = logging.getLogger("learn_to_steer")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before


def impossible(argv: list[str]) -> list[str]:
    """The words that no verb can mean: whole numbers of 64 bits and more, no folder, NUL; a rate of nothing."""
    pairs = [word.partition("=")[::2] for word in argv]
    return [
        name
        for name, value in pairs
        if "\x00" in name + value
        or (name.startswith("--") and value in HUGE)
        or (name == "--out" and not value.strip())
        or (name == "--rate" and value in ("0", "-0.0", "nan", "inf", "-inf", "1e400"))
    ]


def check(argv: list[str], folder: Path, before: set[Path]) -> None:
    outcome = run(argv)
    if outcome is None:
        # Of an option the last value is used; open_model, which does not run here, checks what is set.
        options = [word for word in argv if word.startswith("--") and not word.startswith("--set=")]
        used = dict(word.rpartition("=")[::2] for word in options)
        assert not any(value in HUGE for value in used.values()), "a huge number is used"
        return
    assert outcome.code in (0, 2), outcome
    if outcome.code == 2:
        assert listing(folder) == before, "a refused command wrote files"
        assert "Traceback" not in outcome.err or "--debug" in argv
        lines = outcome.err.strip().splitlines()
        assert lines and lines[-1].startswith("error: "), outcome.err
        assert "--debug" in argv or sum(line.startswith("error: ") for line in lines) == 1
    assert "\x1b" not in outcome.out + outcome.err, "an escape sequence reaches the terminal"


@settings(max_examples=6 * settings().max_examples)
@given(command_lines())
@example(["generate", PROMPT, "--images=18446744073709551616"])
@example(["train", "--data", "maps", "--out", "classifier", "--rate=0"])
@example(["generate", PROMPT, "--out="])
@example(["generate", PROMPT, "--out=a\x00b"])
@example(["generate", PROMPT, "--model=\x1b[31mred"])
@example(["parse", "a \ud800 dog to the left of a cat"])
@example(["list", "\ud800"])
@example(["generate", PROMPT, "--config=fifo"])
@example(["score", "fifo", "--benchmark", "unseen", "--detector", "emoji"])
@example(["audit", "evaluation", "--labels=fifo"])
@example(["evaluate", "--prompts=fifo"])
@example(["collect", "--out", "maps", "--source=folder", "--data=fifo"])
@example(["audit", "a" * 300])
@example(["generate", PROMPT, "--set=x=" + "[" * 100_000])
@example(["generate", PROMPT, "--model=~nobody/x"])
@example(["evaluate", "--benchmark", "unseen", "--guidance=9223372036854775808", "--guidance=0"])
def test_any_option(place: Callable[[], Path], argv: list[str]) -> None:
    folder = place()
    check(argv, folder, listing(folder))


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(st.sampled_from((*COMMANDS, *TEXT, "--help", "-h", "--version", "--seed", "--debug")), max_size=5))
@example([])
@example(["generate", "--prompt"])
def test_any_words(place: Callable[[], Path], argv: list[str]) -> None:
    place()
    if {"doctor", "bench"} & set(argv):  # load a model
        return
    outcome = run(argv)
    assert outcome is None or outcome.code in (0, 2)
    assert outcome is None or "Traceback" not in outcome.err or "--debug" in argv


SETTINGS = sorted(SteeringConfig().as_dict())


@given(
    st.sampled_from(SETTINGS) | st.text(max_size=5),
    st.sampled_from((*REAL, *HUGE, *TEXT)) | values.map(json.dumps) | st.text(max_size=6),
)
@example("rate", "NaN")
@example("by_step_index", "9223372036854775808")
@example("passes", "1e400")
@example("refinement", "[[0.2, 20, 0.5]]")
def test_any_setting(place: Callable[[], Path], name: str, value: str) -> None:
    folder = place()
    check(["generate", PROMPT, f"--set={name}={value}"], folder, listing(folder))


CONFIG = {
    "seed": 1,
    "images": 2,
    "model": "sd:emoji",
    "steps": 3,
    "guidance": 7.5,
    "loss": "learned",
    "set": {"threshold": 0.9, "refinement": [[0.2, 20, 0.5]], "rate": "1e-3"},
    "relation": ["dog | left of | cat"],
    "strict": True,
    "lora": [],
    "nlp": None,
    "out": "out",
}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)


def check_config(content: bytes, folder: Path) -> None:
    (folder / "run.yaml").write_bytes(content)
    check(["generate", PROMPT, "--config", "run.yaml"], folder, listing(folder))


@settings(max_examples=2 * settings().max_examples)
@given(tree_edits)
@example([(0, float("nan"))])
@example([(1, 2**64)])
@example([(1, 10**400)])
@example([(5, "9" * 5000)])
def test_run_configs_with_other_values(place: Callable[[], Path], edits: list[tuple[int, Any]]) -> None:
    check_config(json.dumps(edited_tree(CONFIG, edits)).encode(), place())  # JSON is YAML


@given(byte_edits)
def test_run_configs_with_other_bytes(place: Callable[[], Path], edits: list[tuple[int, int, bytes]]) -> None:
    import yaml

    check_config(edited_bytes(yaml.safe_dump(CONFIG).encode(), edits), place())


YAML = (
    "seed", ": ", "- ", "\n", "  ", "&a ", "*a", "<<: ", "!!python/object:os.system ", "!!int ", "!!timestamp ",
    "!!binary ", "2001-99-99", "0x", "0b2", "1:99", ".nan", "~", "{", "}", "[", "]", ",", "|\n", ">\n", '"', "'",
    "\\x", "#", "---\n", "? ", "%YAML 9.9\n", "\x00", "\ufeff", "set", "x", "1", "=",
)  # fmt: skip


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(st.sampled_from(YAML) | st.text(max_size=3), max_size=14).map("".join))
@example(BOMB)
@example("set: " + BOMB.replace("\n", "\n  "))
@example("&a [*a]")
@example("seed: &a [*a]")
@example("set: &a {x: *a}")
@example("[" * 5000)
@example("a: " * 5000)
@example("seed: 2001-99-99")
@example("seed: 0b2")
@example("seed: !!int x")
@example("!!int ")
@example("\x7f")
@example("seed: !!timestamp x")
@example("{1: 2, [3]: 4}")
@example("? {a: b}\n: c")
@example("seed: " + "9" * 5000)
def test_run_configs_of_any_text(place: Callable[[], Path], text: str) -> None:
    check_config(text.encode("utf-8", "surrogatepass"), place())
