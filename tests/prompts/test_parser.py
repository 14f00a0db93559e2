from __future__ import annotations

import json
from pathlib import Path

import pytest

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import PREDICATES, parse, relation_prompt

CASES = json.loads(Path(__file__).with_name("cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
def test_relations_and_spans(case: dict) -> None:
    found = parse(case["prompt"])
    assert [relation.as_list() for relation in found] == case["relations"]
    assert [[list(relation.subject_span), list(relation.object_span)] for relation in found] == case["spans"]


@pytest.mark.parametrize("predicate", PREDICATES)
def test_our_own_phrases_are_read_back(predicate: str) -> None:
    (relation,) = parse(relation_prompt("teddy bear", predicate, "umbrella"))
    assert relation.as_list() == ["teddy bear", predicate, "umbrella"]


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt_is_an_error(prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        parse(prompt)


@pytest.mark.parametrize(
    "prompt", ["?!", "—", "above", "of of of", "a", "no", "'s", "left of left of", "🐶 above 🐱", "-"]
)
def test_odd_prompts_do_not_crash(prompt: str) -> None:
    assert parse(prompt) == ()
