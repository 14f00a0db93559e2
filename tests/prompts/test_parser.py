from __future__ import annotations

import json
from pathlib import Path

import pytest

from learn_to_steer.errors import PromptError
from learn_to_steer.prompts import PREDICATES, parse, relation_prompt
from learn_to_steer.prompts.tagging import Tag
from learn_to_steer.prompts.word_lists import FIXED_PHRASES

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


@pytest.mark.parametrize(("phrase", "tag"), [(" ".join(words), tag) for words, tag in FIXED_PHRASES.items()])
def test_fixed_phrases_have_a_tag_and_do_not_stop_the_parser(phrase: str, tag: str) -> None:
    assert tag in {known.value for known in Tag}
    parse(f"a dog {phrase} a cat above a bench")


def test_as_well_as_joins_two_relations() -> None:
    found = parse("a dog above a cat as well as a bird left of a bench")
    assert [relation.as_list() for relation in found] == [["dog", "above", "cat"], ["bird", "left of", "bench"]]


def test_over_is_about_the_driver_but_not_about_the_baker() -> None:
    (found,) = parse("a man drives a car over a bridge")
    assert found.as_list() == ["man", "above", "bridge"]
    assert parse("a baker dusts flour over a loaf") == ()


def test_a_singular_noun_before_another_noun_is_no_subject_with_a_verb() -> None:
    (found,) = parse("some dog food above a bowl")
    assert found.as_list() == ["food", "above", "bowl"]
