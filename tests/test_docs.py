"""Every snippet of README and docs works: Python runs, command lines are read by the command line, files are there.

A Python block runs in the namespace of its page, in an empty folder. What a reader has and the test has not is declared
in a comment before the block::

    <!-- test
    setup: pipe = load_pipeline("sd:emoji")
    replace: path/to/classifier -> sd:emoji
    -->

``setup`` is run before the block, and ``replace`` changes its text. Command lines are parsed, and run as well where an
emoji model or no model is needed (``QUICK``). Every model takes ``STEPS`` denoising steps.
"""

from __future__ import annotations

import json
import pkgutil
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EMOJI_MODELS = ("sd:emoji", "flux:emoji", "flux:emoji-schnell")
STEPS = 2
# Verb -> what makes it quick; it then runs with an emoji model, or without any.
QUICK = {
    "list": [],
    "parse": [],
    "generate": ["--steps", str(STEPS)],
    "evaluate": ["--steps", str(STEPS), "--limit", "1", "--images", "1", "--set", "total_passes=2"],
}
# Options that name files or weights a reader brings along, or that take long: such a line is parsed only. So are lines
# with a verb and a model that another line has.
LEFT_OUT = (
    *("--data", "--classifier", "--lora", "--against", "--config", "--prompts", "--nlp", "--quantize", "--offload"),
    "--verifier",
)
NEEDS_WEIGHTS = ("mask2former", "owlv2", "grounding-dino", "clipseg")
PACKAGES = (ROOT / "src" / "learn_to_steer", ROOT / "emoji_world" / "src" / "learn_to_steer_emoji")
# Placeholders, files of other projects, folders that are made or that a reader has, and what there is no more.
NO_FILES = {
    *("my_idea.py", "src/learn_to_steer/families/NAME.py", "spatial_val.txt"),
    *("out/demo/", "images/", "samples/", "train2017/", "runs/", "utils.py"),
}
PROGRAMS = ("git", "hf", "cd", "export", "python3", "curl", "serve")
BLOCK = re.compile(
    r"(?:<!-- test\n(?P<note>.*?)-->\s*)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FILE = re.compile(r"[\w./-]*\w\.(py|md|toml|txt|cff)|[\w./-]+/")
DIARY = re.compile(r"\b(sittings?|sessions?|today|yesterday|this time|now it)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line it begins at, its language, its text, and what the test is told about it."""

    page: Path
    line: int
    language: str
    text: str
    setup: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    content = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(content):
        text, setup = found["text"], []
        for line in filter(None, map(str.strip, (found["note"] or "").splitlines())):
            word, _, rest = line.partition(": ")
            assert word in ("setup", "replace"), f"{page.name}: {line!r} is neither setup nor replace"
            if word == "setup":
                setup.append(rest)
            else:
                old, _, new = rest.partition(" -> ")
                assert old in text, f"{page.name}: the block does not contain {old!r}"
                text = text.replace(old, new)
        line = content.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], text, setup)


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON_PAGES = [page for page in PAGES if any(b.page == page and b.language == "python" for b in BLOCKS)]


def model_of(words: list[str]) -> str:
    return words[words.index("--model") + 1] if "--model" in words else EMOJI_MODELS[0]


def can_run(arguments: list[str]) -> bool:
    options = {word.split("=")[0] for word in arguments}
    weights = any(word.split(":")[0] in NEEDS_WEIGHTS for word in arguments)
    quick = arguments[0] in QUICK and model_of(arguments) in EMOJI_MODELS
    return quick and not options & set(LEFT_OUT) and not weights


def commands() -> list[Any]:
    """Every command line once, comments taken away and lines joined; one that differs in ``--out`` only is the same."""
    found: dict[tuple[str, ...], Any] = {}
    runs: set[tuple[str, str]] = set()
    for block in BLOCKS:
        if block.language in ("sh", "bash"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    key = tuple(shlex.split(re.sub(r"--out \S+", "", shlex.join(words))))
                    run = words[0] == "learn-to-steer" and can_run(words[1:])
                    first = run and (words[1], model_of(words)) not in runs
                    if first:
                        runs.add((words[1], model_of(words)))
                    label = f"{block}: {' '.join(words)[:60]}"
                    found.setdefault(key, pytest.param(words, first, id=label))
    return list(found.values())


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that ``load_pipeline`` loads take few denoising steps, and few iterations in each."""
    from learn_to_steer import sampling

    remember = sampling.remember

    def shortened(pipe: Any, variant: Any) -> None:
        remember(pipe, replace(variant, steps=STEPS, tuned_settings={"max_iterations": 2}))

    monkeypatch.setattr("learn_to_steer.loading.remember", shortened)


def test_there_are_snippets() -> None:
    assert PYTHON_PAGES
    assert {block.language for block in BLOCKS} <= {"python", "sh", "bash", "json", "yaml", "toml", "text"}


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("few_steps")
@pytest.mark.filterwarnings("ignore")
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    for block in blocks(page):
        if block.language == "python":
            exec(compile("\n".join(block.setup), f"{block} (setup)", "exec"), namespace)
            # Blank lines before it make the numbers of a traceback those of the page.
            exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)


@pytest.mark.parametrize(("words", "runs"), commands())
def test_command_is_understood(
    words: list[str], runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = words
    if program == "learn-to-steer":
        parse(arguments)
        check_names(arguments)
        if runs:
            monkeypatch.chdir(tmp_path)
            run(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for group in re.findall(r"\[(.*?)\]", " ".join(arguments)):
            assert set(group.split(",")) <= set(extras)
        assert all((ROOT / word).exists() for word in arguments if word.startswith("./"))
    elif program == "python":
        monkeypatch.chdir(tmp_path)
        script, *options = arguments
        if script.startswith("examples/"):
            run_example(ROOT / script, options, monkeypatch)
        else:
            text = help_text(ROOT / script, monkeypatch, capsys)
            assert [word for word in options if word.startswith("--") and word not in text] == []
    else:
        assert program in PROGRAMS, f"nothing is known of {program!r}"


def parse(arguments: list[str]) -> None:
    """Fail for a verb or an option that the command line does not have."""
    from typer.main import get_command

    from learn_to_steer.cli.application import app

    root: Any = get_command(app)
    context = root.make_context("learn-to-steer", list(arguments[:1]))
    verb = root.get_command(context, arguments[0])
    assert verb is not None, f"there is no verb {arguments[0]!r}"
    verb.make_context(arguments[0], list(arguments[1:]), parent=context)


def run_example(script: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example in few steps."""
    steps = "steps=25"
    code = script.read_text(encoding="utf-8")
    assert steps in code
    monkeypatch.setattr(sys, "argv", [script.name, *arguments])
    exec(compile(code.replace(steps, f"steps={STEPS}"), str(script), "exec"), {"__name__": "__main__"})


def help_text(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    monkeypatch.syspath_prepend(str(script.parent))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    return capsys.readouterr().out


def check_names(arguments: list[str]) -> None:
    """Fail for a loss, a benchmark, a profile or a setting that does not exist."""
    from learn_to_steer import registry
    from learn_to_steer.benchmarks import benchmark_names
    from learn_to_steer.steering import profile

    values: dict[str, list[str]] = {}
    for option, value in pairwise(arguments):
        values.setdefault(option, []).append(value)
    assert {*values.get("--loss", []), *values.get("--objective", [])} <= {*registry.names("losses"), "none"}
    assert set(values.get("--benchmark", [])) <= set(benchmark_names())
    for name in values.get("--profile", ["default"]):
        settings = dict(setting.split("=") for setting in values.get("--set", []))
        profile(name).changed(**{key: json.loads(value) for key, value in settings.items()})


def run(arguments: list[str]) -> None:
    from learn_to_steer.cli import main

    # The last of two values counts.
    assert main([*arguments, *QUICK[arguments[0]]]) == 0


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("json", "yaml")], ids=str)
def test_data_can_be_read(block: Block) -> None:
    if block.language == "json":
        for line in filter(None, block.text.splitlines()):
            json.loads(line)
    else:
        import yaml

        assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_no_page_is_a_diary(page: Path) -> None:
    lines = enumerate(SPAN.sub("", page.read_text(encoding="utf-8")).splitlines(), start=1)
    assert [f"{number}: {line}" for number, line in lines if DIARY.search(line)] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    spans = [span.split()[0].split(":")[0] for span in SPAN.findall(page.read_text(encoding="utf-8")) if span.strip()]
    names = {span for span in spans if FILE.fullmatch(span)} - NO_FILES
    assert sorted(name for name in names if not is_in_repository(name, page)) == []


def is_in_repository(name: str, page: Path) -> bool:
    """Whether ``name`` is a path from the root, from the page, from one of the packages, or the name of a script."""
    folders = [ROOT, page.parent, *PACKAGES]
    return any((folder / name).exists() for folder in folders) or ("/" not in name and name in script_names())


@cache
def script_names() -> frozenset[str]:
    folders = ("src", "reproduce", "emoji_world", "examples", "tests")
    return frozenset(path.name for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_equations_quote_the_example() -> None:
    example = (ROOT / "examples" / "minimal.py").read_text(encoding="utf-8")
    quoted = [span for span in SPAN.findall((ROOT / "docs" / "method.md").read_text(encoding="utf-8")) if " = " in span]
    assert quoted
    assert [line for line in quoted if line not in example] == []


def test_new_names_in_the_changelog_exist() -> None:
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = [name.split("(")[0] for row in rows for name in SPAN.findall(row) if "." in name]
    assert len(names) > 100
    assert [name for name in names if not is_defined(name)] == []


def is_defined(name: str) -> bool:
    """Whether ``name`` (``steering.loop.SteeringLoop.steer``) is a module, or a name or a field that a module has."""
    full = name if name.startswith("learn_to_steer_emoji") else f"learn_to_steer.{name}"
    try:
        pkgutil.resolve_name(full)
    except (ImportError, AttributeError):
        owner, _, field_name = full.rpartition(".")
        return "." in name and is_a_field(owner, field_name)
    return True


def is_a_field(owner: str, name: str) -> bool:
    """Whether the class ``owner`` declares the attribute ``name``, with or without a value."""
    try:
        found = pkgutil.resolve_name(owner)
    except (ImportError, AttributeError):
        return False
    return isinstance(found, type) and any(name in vars(kind).get("__annotations__", {}) for kind in found.__mro__)
