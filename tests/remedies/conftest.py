"""What tests of remedies on the command line have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``run(*words)``: stderr of a command that must end with exit code 0, or with 2 if ``fails``."""
    monkeypatch.chdir(tmp_path)

    def command(*words: Any, fails: bool = False) -> str:
        capsys.readouterr()
        code = main([str(word) for word in words])
        err = capsys.readouterr().err
        assert code == (2 if fails else 0), err
        return err

    return command
