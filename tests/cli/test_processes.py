"""Verbs that write files, but for train, run in one process: a launcher would start its processes on the same files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from learn_to_steer import training
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.processes import COUNTS, require_one_process

DOG = "a dog to the left of a cat"
WRITING = {
    "generate": [DOG],
    "collect": ["--limit", "1"],
    "train": ["--data", "maps"],
    "evaluate": ["--benchmark", "unseen", "--limit", "1"],
    "score": ["pictures"],
    "export-prompts": ["--benchmark", "ood"],
    "import-official": ["file.pth", "--model", "flux:schnell"],
}


@pytest.mark.parametrize("verb", WRITING)
@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_a_verb_that_writes_is_refused_in_several_processes(run, tmp_path, monkeypatch, verb, variable) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "2")
    outcome = run(verb, *WRITING[verb], "--out", "out")
    assert outcome.code == 2 and f"error: {verb} runs in one process, but it was started in 2" in outcome.err
    assert "accelerate launch" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_verb_that_only_shows_something_is_not_refused(run, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("parse", DOG).code == 0


def test_training_is_refused_in_processes_that_do_not_know_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnsupportedError, match="train runs in one process"):
        training.train(tmp_path / "maps", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", ["", "1", " 1 ", "0"])
def test_one_process_is_fine(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    for name in COUNTS:
        monkeypatch.setenv(name, count)
    require_one_process("train")


@pytest.mark.slow
def test_two_real_processes_are_both_refused(tmp_path: Path) -> None:
    command = "import sys; from learn_to_steer.cli import main; sys.exit(main(sys.argv[1:]))"
    (tmp_path / "program.py").write_text(command)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    arguments = [tmp_path / "program.py", "collect", "--limit", "1", "--out", tmp_path / "out"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("collect runs in one process") >= 1
    assert not (tmp_path / "out").exists()
