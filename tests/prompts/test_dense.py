"""Prompts as people write them: ``dense.json``, by hand, with what a careful reader takes from each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from learn_to_steer.prompts import parse

CASES = json.loads(Path(__file__).with_name("dense.json").read_text(encoding="utf-8"))
READ = [case for case in CASES if "known_failure" not in case]
FAILURES = [case for case in CASES if "known_failure" in case]


def title(case: dict) -> str:
    return case["prompt"]


@pytest.mark.parametrize("case", READ, ids=title)
def test_relations(case: dict) -> None:
    found = parse(case["prompt"])
    assert [relation.as_list() for relation in found] == case["relations"]
    for relation in found:
        for name, span in ((relation.subject, relation.subject_span), (relation.object, relation.object_span)):
            said = " ".join(re.split(r"[\s-]+", case["prompt"][slice(*span)].lower()))
            assert said == name.replace("-", " ")


@pytest.mark.parametrize("case", [case for case in READ if "spans" in case], ids=title)
def test_spans_are_those_of_the_occurrence_that_is_meant(case: dict) -> None:
    prompt = case["prompt"]
    for relation, around in zip(parse(prompt), case["spans"], strict=True):
        for span, text in zip((relation.subject_span, relation.object_span), around, strict=True):
            assert prompt.count(text) == 1, f"{text!r} does not say which"
            start = prompt.index(text)
            assert start <= span[0] < span[1] <= start + len(text)


@pytest.mark.parametrize("case", FAILURES, ids=title)
def test_what_is_not_understood_is_left_out(case: dict) -> None:
    found = [relation.as_list() for relation in parse(case["prompt"])]
    assert found != case["relations"], "understood now: take the mark away"
    assert all(relation in case["relations"] for relation in found)


def test_the_list_is_long_and_varied() -> None:
    prompts = [case["prompt"] for case in CASES]
    assert len(set(prompts)) == len(prompts) >= 80
    assert len(FAILURES) <= len(CASES) / 10
    for group in ("none", "must not match"):
        assert sum(case["group"] == group and not case["relations"] for case in CASES) >= 15
