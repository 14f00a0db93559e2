"""Which names are plural, and which two may mean the same thing."""

import pytest

from learn_to_steer.benchmarks.geneval import CLASSES
from learn_to_steer.sources._nouns import is_known, is_plural, meanings, normalise, related, singular


@pytest.mark.parametrize(
    ("plural", "single"),
    [
        ("dogs", "dog"),
        ("buses", "bus"),
        ("benches", "bench"),
        ("knives", "knife"),
        ("puppies", "puppy"),
        ("cookies", "cookie"),
        ("men", "man"),
        ("people", "person"),
        ("mice", "mouse"),
        ("traffic lights", "traffic light"),
        ("menus", "menu"),
        ("gizmos", "gizmo"),
    ],
)
def test_plurals_have_the_singular_of_their_singular(plural, single):
    assert is_plural(plural) and not is_plural(single)
    assert singular(plural) == singular(single) == single


def test_things_that_end_like_plurals_are_one():
    for name in ("bus", "glass", "scissors", "jeans", "skis", "lens", "tennis racket", "glasses"):
        assert not is_plural(name), name
    # Spectacles are one thing, but beside a glass nobody knows whether they are not several of those.
    assert singular("glasses") == singular("glass")


def test_every_class_of_coco_is_known_and_singular():
    assert [name for name in CLASSES if not is_known(name) or is_plural(name)] == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("dog", "animal"),
        ("corgi", "dog"),
        ("dogs", "animal"),
        ("couch", "sofa"),
        ("man", "person"),
        ("man", "people"),
        ("chicken", "bird"),
        ("truck", "vehicle"),
        ("television", "tv"),
        ("traffic light", "light"),
        ("office chair", "furniture"),
    ],
)
def test_synonyms_hypernyms_and_heads_are_related_both_ways(first, second):
    assert related(first, second) and related(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [("dog", "cat"), ("dog", "man"), ("cup", "table"), ("car", "bus"), ("person", "toaster"), ("shirt", "man")],
)
def test_different_things_are_not_related(first, second):
    assert not related(first, second) and not related(second, first)


def test_synonyms_share_a_meaning():
    assert meanings("computer mouse") & meanings("mouse")
    assert not meanings("dog") & meanings("cat")


def test_names_are_cleaned_or_refused():
    assert normalise("  Traffic_Light ") == "traffic light"
    for wrong in (None, 3, "", " ", "!?", "a" * 99, "x\ud800"):
        assert normalise(wrong) is None


def test_unknown_words_are_unknown():
    assert not is_known("florbx")
    assert is_known("red florbx chair")
