from __future__ import annotations

import pytest

from learn_to_steer.errors import PromptError
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.prompts import PREDICATES, Relation, indefinite_article, locate, phrase, relation_prompt


def words(prompt: str, relation: Relation) -> tuple[str, str]:
    assert relation.subject_span is not None
    assert relation.object_span is not None
    return prompt[slice(*relation.subject_span)], prompt[slice(*relation.object_span)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog | left of | cat", ["dog", "left of", "cat"]),
        ("A Dog|To the Left of| the Teddy  Bear ", ["dog", "left of", "teddy bear"]),
        ("cup | on top of | table", ["cup", "above", "table"]),
        ("cup | above_left_of | table", ["cup", "above left of", "table"]),
        ("cup | underneath | anteater", ["cup", "below", "anteater"]),
    ],
)
def test_from_text(text: str, expected: list[str]) -> None:
    assert Relation.from_text(text).as_list() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog | lefft of | cat", "left of"),
        ("dog | abvoe | cat", "mean 'above'"),
        ("dog | is | cat", "unknown predicate 'is'"),
        ("dog left of cat", "write it as"),
        ("dog | above | cat | below", "write it as"),
        (" | above | cat", "two named objects"),
        ("dog | above | ", "two named objects"),
    ],
)
def test_from_text_refuses(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message.replace("|", r"\|")):
        Relation.from_text(text)


def test_constructor_refuses_an_unknown_predicate() -> None:
    with pytest.raises(PromptError, match="unknown predicate"):
        Relation("dog", "to the left of", "cat")


def test_spans_do_not_take_part_in_comparison() -> None:
    assert Relation("a", "above", "b", (0, 1), (5, 6)) == Relation("a", "above", "b")


def test_locate_finds_whole_words_whatever_their_case() -> None:
    prompt = "A catalog and a CAT, and a Teddy  Bear"
    found = locate(prompt, Relation("cat", "above", "teddy bear"))
    assert words(prompt, found) == ("CAT", "Teddy  Bear")
    assert found.subject_span == (16, 19)


def test_locate_gives_equal_nouns_two_places() -> None:
    found = locate("a dog and a dog", Relation("dog", "left of", "dog"))
    assert (found.subject_span, found.object_span) == ((2, 5), (12, 15))
    with pytest.raises(PromptError, match="second time"):
        locate("a dog", Relation("dog", "left of", "dog"))


def test_locate_keeps_a_noun_apart_from_the_longer_one_around_it() -> None:
    found = locate("a hot dog and a dog", Relation("dog", "left of", "hot dog"))
    assert (found.subject_span, found.object_span) == ((16, 19), (2, 9))


def test_locate_keeps_the_spans_that_are_there() -> None:
    relation = Relation("dog", "above", "cat", subject_span=(12, 15))
    assert locate("a dog and a dog and a cat", relation).subject_span == (12, 15)
    with pytest.raises(PromptError, match="outside"):
        locate("a dog and a cat", Relation("dog", "above", "cat", subject_span=(12, 40)))


def test_locate_names_the_nearest_word() -> None:
    with pytest.raises(PromptError, match=r"'zebra' is not in the prompt .*'zebras'"):
        locate("two zebras and a cat", Relation("zebra", "above", "cat"))
    with pytest.raises(PromptError, match="'teddy bears'"):
        locate("teddy bears and a cat", Relation("cat", "above", "teddy bear"))


def test_phrases() -> None:
    assert phrase("left of") == "to the left of"
    assert phrase("above") == "above"
    assert phrase("below right of") == "below and to the right of"
    assert phrase(NEUTRAL) == "is"
    assert len({phrase(predicate) for predicate in PREDICATES}) == 8
    with pytest.raises(PromptError, match="did you mean 'right of'"):
        phrase("rigth of")


def test_relation_prompt() -> None:
    assert relation_prompt("dog", "left of", "teddy bear") == "a dog to the left of a teddy bear"
    assert relation_prompt("umbrella", "below", "airplane") == "an umbrella below an airplane"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        *[
            (noun, "a")
            for noun in ("dog", "horse", "skis", "unicorn", "uniform", "ufo", "usb stick", "xylophone", "ewer")
        ],
        *[(noun, "a") for noun in ("ukulele", "utensil", "one-way sign", "european", "university")],
        *[(noun, "an") for noun in ("Apple", "umbrella", "usher", "hourglass", "x-ray", "onion", "unusual cat")],
    ],
)
def test_article_goes_by_sound(noun: str, expected: str) -> None:
    assert indefinite_article(noun) == expected


def test_article_of_nothing_is_an_error() -> None:
    with pytest.raises(PromptError):
        indefinite_article(" ")
