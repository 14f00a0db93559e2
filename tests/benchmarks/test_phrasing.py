"""The same layouts in other words: what the forms ask for, and that our own parser reads them so."""

from __future__ import annotations

import pytest

from learn_to_steer.benchmarks import phrasing, prompts


@pytest.mark.parametrize("name", phrasing.NAMES)
def test_every_form_asks_for_the_layouts_of_the_source(name: str) -> None:
    source = {prompt.index: prompt for prompt in prompts(phrasing.SOURCE)}
    kept = 1 if name in ("phrasing-plain", "phrasing-dense") else 2
    for prompt in prompts(name):
        wanted = [relation.as_list() for relation in source[prompt.index].relations]
        assert [relation.as_list() for relation in prompt.relations] == wanted[:kept]


def test_plain_and_dense_prompts_ask_for_the_same() -> None:
    plain, dense = (prompts(f"phrasing-{form}") for form in ("plain", "dense"))
    assert [prompt.index for prompt in plain] == [prompt.index for prompt in dense]


@pytest.mark.parametrize("name", ["phrasing-and", "phrasing-same"])
def test_the_second_relation_is_about_the_second_mention(name: str) -> None:
    first, second = prompts(name)[0].relations
    assert first.object == second.subject and first.object_span != second.subject_span
