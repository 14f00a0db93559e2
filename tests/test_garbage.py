"""The search for garbage waits while a model is loaded, in processes of the command line only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from learn_to_steer import garbage, load_pipeline
from learn_to_steer.random_models import random_pipeline

MANY = "kept = [[] for _ in range(50_000)]"
SEARCHES = "sum(one['collections'] for one in gc.get_stats())"


def run(code: str, *words: str) -> list[str]:
    """The words that a process prints last; freezing must not reach the process of the tests."""
    script = f"import gc, sys\nfrom learn_to_steer import garbage\nfrom learn_to_steer.cli import main\n{code}"
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nothing_is_searched_until_the_model_is_loaded() -> None:
    code = f"""
before = gc.get_threshold()
garbage.postpone()
searched = {SEARCHES}
{MANY}
print({SEARCHES} - searched)
garbage.loaded()
print(gc.get_freeze_count() > 50_000, gc.get_threshold() == before)
{MANY}
print({SEARCHES} > searched)
"""
    assert run(code) == ["0", "True", "True", "True"]


def test_what_is_made_after_loading_is_searched() -> None:
    code = """
import weakref
class Node: pass
def cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)
garbage.postpone()
early = cycle()
garbage.loaded()
late = cycle()
gc.collect()
print(early() is None, late() is None)
"""
    assert run(code) == ["False", "True"]


def test_a_search_that_does_not_wait_is_left_alone() -> None:
    """As in a user's own process, which calls ``load_pipeline``; and where the user switched the search off."""
    code = """
usual = gc.get_threshold()
garbage.loaded()
print(gc.get_freeze_count())
gc.disable()
garbage.postpone()
print(gc.get_threshold() == usual)
"""
    assert run(code) == ["0", "True"]


@pytest.mark.parametrize(("verb", "postponed"), [("generate", True), ("parse", False)])
def test_only_verbs_that_load_a_model_let_it_wait(verb: str, postponed: bool) -> None:
    code = "usual = gc.get_threshold()\nmain()\nprint('waits', gc.get_threshold() != usual)"
    assert run(code, verb, "--help")[-2:] == ["waits", str(postponed)]


def test_a_command_inside_another_program_leaves_the_search_alone() -> None:
    code = """
usual = gc.get_threshold()
main(["generate", "--help"])
print(gc.get_threshold() == usual, gc.get_freeze_count())
"""
    assert run(code)[-2:] == ["True", "0"]


def test_the_end_of_the_process_searches_nothing_that_exists() -> None:
    code = "main()\nprint('skipped', gc.get_freeze_count() > 1000)"
    assert run(code, "parse", "a dog to the left of a cat")[-2:] == ["skipped", "True"]


def test_loading_a_model_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(garbage, "loaded", lambda: calls.append("loaded"))
    load_pipeline("flux:emoji")
    assert calls == ["loaded"]


def test_making_a_random_model_ends_the_waiting(saved_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(garbage, "loaded", lambda: calls.append("loaded"))
    random_pipeline(str(saved_sd))
    assert calls == ["loaded"]
