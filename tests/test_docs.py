"""Every snippet of README and docs works: Python runs, command lines are read by the command line, files are there.

A Python block runs in the namespace of its page, in an empty folder. What a reader has and the test has not is declared
in a comment before the block::

    <!-- test
    setup: pipe = load_pipeline("sd:emoji")
    replace: path/to/classifier -> sd:emoji
    -->

``setup`` is run before the block, and ``replace`` changes its text. Command lines are parsed, and run as well where the
embedded models are quick (``QUICK``).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EMBEDDED = ("sd:emoji", "flux:emoji", "flux:emoji-schnell")
# Verb -> what makes it quick; it then runs with an embedded model, or without any.
QUICK = {
    "list": [],
    "parse": [],
    "export-prompts": [],
    "generate": ["--steps", "2"],
    "evaluate": ["--steps", "2", "--limit", "1", "--images", "1"],
}
# Options that name files or weights a reader brings along: such a line is parsed, and not run.
BROUGHT = ("--data", "--classifier", "--lora", "--against", "--config", "--prompts", "--nlp", "--quantize", "--offload")
NEEDS_WEIGHTS = ("mask2former", "owlv2", "grounding-dino", "clipseg")
PROGRAMS = ("git", "hf", "cd", "python3")
BLOCK = re.compile(
    r"(?:<!-- test\n(?P<note>.*?)-->\s*)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
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


def commands() -> list[Any]:
    """Every command line, comments taken away and lines joined."""
    found = []
    for block in BLOCKS:
        if block.language in ("sh", "bash"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found.append(pytest.param(words, id=f"{block}: {' '.join(words)[:60]}"))
    return found


def test_there_are_snippets() -> None:
    assert PYTHON_PAGES
    assert {block.language for block in BLOCKS} <= {"python", "sh", "bash", "json", "yaml", "toml", "text"}


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore")
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    for block in blocks(page):
        if block.language == "python":
            exec(compile("\n".join(block.setup), f"{block} (setup)", "exec"), namespace)
            # Blank lines before it make the numbers of a traceback those of the page.
            exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)


@pytest.mark.parametrize("words", commands())
def test_command_is_understood(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = words
    if program == "learn-to-steer":
        parse(arguments)
        if runs_here(arguments):
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
    elif program == "python" and arguments[0].startswith("examples/"):
        subprocess.run([sys.executable, ROOT / arguments[0], *arguments[1:]], cwd=tmp_path, check=True)
    elif program == "python" and arguments[0].endswith(".py"):
        told = subprocess.run(
            [sys.executable, ROOT / arguments[0], "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert told.returncode == 0, told.stderr
        for word in arguments:
            if word.startswith("--"):
                assert word in told.stdout, f"{arguments[0]} has no option {word}"
    else:
        assert program in PROGRAMS, f"nothing is known of {program!r}"


def parse(arguments: list[str]) -> None:
    """Fail for a verb or an option that the command line does not have."""
    from typer.main import get_command

    from learn_to_steer.cli import app

    root: Any = get_command(app)
    context = root.make_context("learn-to-steer", list(arguments[:1]))
    verb = root.get_command(context, arguments[0])
    assert verb is not None, f"there is no verb {arguments[0]!r}"
    verb.make_context(arguments[0], list(arguments[1:]), parent=context)


def runs_here(arguments: list[str]) -> bool:
    verb, *rest = arguments
    options = {word.split("=")[0] for word in rest}
    model = rest[rest.index("--model") + 1] if "--model" in rest else EMBEDDED[0]
    weights = any(word.split(":")[0] in NEEDS_WEIGHTS for word in rest)
    return verb in QUICK and model in EMBEDDED and not options & set(BROUGHT) and not weights


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
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    assert [f"{number}: {line}" for number, line in lines if DIARY.search(line)] == []
