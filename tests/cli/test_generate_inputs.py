"""``generate`` and ``evaluate`` report what cannot be steered before they draw, and what the images really show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DIAGONAL = "a cat below and to the right of a pizza"
MIXED = f"a dog to the left of a teddy bear and {DIAGONAL}"
FAR = "a dog to the left of a cat, " + "very bright light and " * 40 + "a cup above a pizza"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each call of a pipeline."""
    from diffusers import StableDiffusionPipeline

    calls: list[None] = []
    original = StableDiffusionPipeline.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", call)
    return calls


def test_what_is_found_but_cannot_be_steered_is_left_out(run: Any, model: list[str], tmp_path: Path) -> None:
    told = run("generate", MIXED, DIAGONAL, FAR, *model, "--set", "passes=1", "--out", tmp_path)
    assert told.code == 0, told.err
    assert told.err.count("is left out of the steering") == 3
    mixed, diagonal, far = json.loads((tmp_path / "report.json").read_text())["prompts"]
    assert [entry["relation"][:2] for entry in mixed["left_out"]] == [["cat", "below right of"]]
    assert "beyond the 77 tokens" in far["left_out"][0]["reason"]
    assert mixed["images"][0]["steering"]["relations"] == [["dog", "left of", "teddy bear"]]
    assert mixed["images"][0]["steering"]["left_out"] == mixed["left_out"]
    assert diagonal["images"][0]["steering"] is None
    base, steered = (tmp_path / f"{kind}-01-00.png" for kind in ("base", "steered"))
    assert base.read_bytes() == steered.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["dog and cat", DIAGONAL, "--strict"],
        ["a dog to the left of a cat", FAR, "--strict"],
        ["a cat and a pizza", "--relation", "cat | above left of | pizza"],
        [FAR, "--relation", "cup | above | pizza"],
    ],
)
def test_what_is_given_is_an_error_before_anything_is_drawn(
    run: Any, model: list[str], tmp_path: Path, counted: list[None], options: list[str]
) -> None:
    told = run("generate", *options, *model, "--out", tmp_path / "out")
    *warnings, error = told.err.strip().splitlines()
    assert told.code == 2 and error.startswith("error: ") and all(line.startswith("warning: ") for line in warnings)
    assert not counted and not (tmp_path / "out").exists()


def test_evaluate_checks_all_prompts_first(run: Any, model: list[str], tmp_path: Path, counted: list[None]) -> None:
    given, parsed = tmp_path / "given.jsonl", tmp_path / "parsed.jsonl"
    good = {"prompt": "a dog to the left of a cat"}
    bad = {"prompt": DIAGONAL, "relations": [["cat", "below right of", "pizza"]]}
    given.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    parsed.write_text(f"{json.dumps(good)}\n{json.dumps({'prompt': MIXED})}\n")
    options = [*model, "--detector", "emoji", "--images", "1", "--set", "passes=1"]
    told = run("evaluate", "--prompts", given, *options, "--out", tmp_path / "refused")
    assert told.code == 2 and "cannot be steered with this loss" in told.err and not counted
    told = run("evaluate", "--prompts", parsed, *options, "--out", tmp_path / "out")
    assert told.code == 0, told.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert "left_out" not in rows[0] and len(rows[1]["relations"]) == 2
    assert [entry["relation"] for entry in rows[1]["left_out"]] == [["cat", "below right of", "pizza"]]


def test_untaught_words_and_what_was_seen(run: Any, tmp_path: Path) -> None:
    prompt = "a frog above a pair of sneakers below a teapot"
    told = run("generate", prompt, "--model", "flux:emoji-schnell", "--steps", "2", "--out", tmp_path)
    assert told.code == 0, told.err
    assert told.err.count("was never taught these words") == 1 and "frog" in told.err
    assert "not checked (the detector does not know frog" in told.out and "classifier's estimate" in told.out
    (entry,) = json.loads((tmp_path / "report.json").read_text())["prompts"]
    assert "frog" in entry["untaught_words"]
    assert entry["images"][0]["steered_seen"]["objects"]["frog"] is None
