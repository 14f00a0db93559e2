"""Kinds of sentences that are easily misread, in ``kinds.json``: joined nouns, what cannot be placed, markup, ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from learn_to_steer.prompts import analyse, parse

CASES = json.loads(Path(__file__).with_name("kinds.json").read_text(encoding="utf-8"))


def last_words(relations: list[list[str]]) -> list[tuple[str, str, str]]:
    return [(subject.split()[-1], predicate, reference.split()[-1]) for subject, predicate, reference in relations]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
def test_relations(case: dict) -> None:
    found = [relation.as_list() for relation in parse(case["prompt"])]
    assert last_words(found) == last_words(case["relations"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
def test_spans_are_those_of_the_names(case: dict) -> None:
    for relation in parse(case["prompt"]):
        for name, span in ((relation.subject, relation.subject_span), (relation.object, relation.object_span)):
            assert case["prompt"][slice(*span)].lower().replace("-", " ") == name.replace("-", " ")


@pytest.mark.parametrize(
    ("prompt", "wording", "reason", "noun"),
    [
        ("a coin at the bottom of a drawer", "at the bottom of", "in or on it", "drawer"),
        ("a book on the right side of the table", "on the right side of", "in or on it", "table"),
        ("a dog on the left of the picture", "on the left of", "in or on it", "picture"),
        ("a warm glow over the fields", "over", "cannot be placed", "glow"),
        ("a boat under the gaze of a sailor", "under", "cannot be placed", "gaze"),
        ("no birds or planes above the tower", "above", "negated", "planes"),
        ("a dog not above a cat", "above", "negated", ""),
        ("a man smiles; a lamp hangs above him", "above", "pronoun", "him"),
        ("it stands left of a tree", "left of", "pronoun", ""),
        ("left of a tree", "left of", "no subject", ""),
        ("a girl holding a balloon above a dog", "above", "unclear subject", ""),
        ("a cat above", "above", "no object", ""),
        ("a bridge under construction", "under", "cannot be placed", "construction"),
        ("two friends chatting over coffee", "over", "no place", "coffee"),
    ],
)
def test_what_is_passed_over_has_a_reason(prompt: str, wording: str, reason: str, noun: str) -> None:
    found = analyse(prompt)
    assert found.relations == ()
    (phrase,) = found.passed_over
    assert (phrase.wording, phrase.reason, phrase.noun) == (wording, reason, noun)
    assert prompt[slice(*phrase.span)].lower() == wording


def test_parse_is_the_short_form_of_analyse() -> None:
    prompt = "a cat above a dog, a glow over the fields"
    found = analyse(prompt)
    assert parse(prompt) == found.relations
    assert [phrase.reason for phrase in found.passed_over] == ["cannot be placed"]


def test_long_prompts_come_with_a_warning() -> None:
    prompt = "a cat above a dog" + ", soft light and fine detail" * 12
    assert "cat | above | dog" in analyse(prompt).warning
    assert analyse("a cat above a dog").warning == ""
    assert analyse("soft light and fine detail, " * 15).warning == ""


LONG = {
    "relations": "a dog left of a cat ",
    "adverbs": "very ",
    "phrases": "in the park with a dog that sits on a box and ",
    "list": "a cat, ",
    "quotes": "\u201c",
    "braces": "{a|",
    "brackets": "(a \\(",
    "settings": "<a [a:b:",
    "that": "that ",
}


def calls(prompt: str) -> int:
    """The number of functions that are called to analyse a prompt."""
    count = 0

    def record(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call"

    analyse("a cat above a dog")  # builds the tables of phrases
    before = sys.getprofile()
    sys.setprofile(record)
    try:
        analyse(prompt)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("part", LONG.values(), ids=LONG)
def test_work_grows_with_the_prompt_only(part: str) -> None:
    assert calls(part * 400 + "a cat above a dog") <= 2.2 * calls(part * 200 + "a cat above a dog") + 100


@pytest.mark.parametrize("part", LONG.values(), ids=LONG)
def test_ten_thousand_words_are_read(part: str) -> None:
    assert analyse(part * (10_000 // max(1, len(part.split()))) + ". a cat above a dog.").words >= 1


def test_no_relation_is_lost_in_a_long_list() -> None:
    assert len(parse(", ".join(["a cat left of a dog"] * 300))) == 300
