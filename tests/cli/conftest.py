"""A tiny model and classifier on disk, and the command line as a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """``run("parse", "a dog ...")`` -> exit code, stdout, stderr."""
    from learn_to_steer.cli import main

    def command(*argv: str) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.fixture
def model(saved_sd: Path) -> list[str]:
    """Options that name the tiny model and its classifier, at two steps."""
    return ["--model", f"{saved_sd}", "--classifier", f"{saved_sd / 'classifier'}", "--steps", "2"]
