"""Tokens that textual inversion added to a tokenizer are words, with all their vectors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from learn_to_steer.prompts import Relation, added_tokens, locate, parse


def words(prompt: str, tokens: Sequence[str] = ()) -> list[tuple[str, str, str, str]]:
    return [
        (relation.subject, prompt[slice(*relation.subject_span)], relation.object, prompt[slice(*relation.object_span)])
        for relation in parse(prompt, tokens=tokens)
    ]


@pytest.mark.parametrize("tokens", [(), ("<toy>",)])
def test_a_token_in_angle_brackets_is_a_word(tokens: Sequence[str]) -> None:
    assert words("a <toy> left of a horse", tokens) == [("<toy>", "<toy>", "horse", "horse")]


def test_all_vectors_of_a_token_belong_to_it() -> None:
    prompt = "a horse above a <toy> <toy>_1 <toy>_2 on grass"
    assert words(prompt) == [("horse", "horse", "<toy>", "<toy> <toy>_1 <toy>_2")]


def test_a_known_token_is_a_word_whatever_its_characters() -> None:
    tokens = ("my_cat", "my_cat_1", "*")
    assert words("a my_cat my_cat_1 below a *", tokens) == [("my_cat", "my_cat my_cat_1", "*", "*")]
    assert words("above a bed: my_cat left of a dog", tokens) == [("my_cat", "my_cat", "dog", "dog")]
    assert words("a below left of a dog", ("below",)) == [("below", "below", "dog", "dog")]


def test_a_token_joins_like_any_noun() -> None:
    found = parse("a cat and <toy> left of a horse", tokens=["<toy>"])
    assert [relation.as_list() for relation in found] == [["cat", "left of", "horse"], ["<toy>", "left of", "horse"]]


def test_settings_in_angle_brackets_are_no_words() -> None:
    assert words("a cat <lora:toy:0.8> left of a horse") == [("cat", "cat", "horse", "horse")]


def test_locate_finds_all_vectors() -> None:
    prompt = "a <toy> <toy>_1 left of a horse"
    found = locate(prompt, Relation("<toy>", "left of", "horse"))
    assert found.subject_span is not None
    assert prompt[slice(*found.subject_span)] == "<toy> <toy>_1"


def test_special_tokens_are_not_among_the_added_ones() -> None:
    class Tokenizer:
        all_special_tokens = ("<s>", "!")

        def get_added_vocab(self) -> dict[str, int]:
            return {"<s>": 0, "!": 1, "<toy>": 2}

    assert added_tokens(Tokenizer()) == {"<toy>"}
    assert added_tokens(object()) == frozenset()
