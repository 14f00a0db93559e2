"""Scenes and captions to train on: the usual ones stay as they were, and every option does what it says."""

import re

import numpy as np
import pytest

from learn_to_steer.geometry import basic_relations
from learn_to_steer.prompts import parse
from learn_to_steer_emoji.captions import (
    ADJECTIVES,
    ASIDES,
    COUNTS,
    OPENINGS,
    PHRASES,
    RICH,
    SETTINGS,
    CaptionStyle,
    caption,
    plural,
)
from learn_to_steer_emoji.scenes import Placed, Scene
from learn_to_steer_emoji.sprites import sprite_names
from learn_to_steer_emoji.tidy import apart, tidied
from learn_to_steer_emoji.world import FINE, WorldConfig, random_scenes


def test_the_usual_scenes_and_captions_are_those_the_packaged_models_were_trained_on():
    rng = np.random.default_rng(5)
    assert [caption(scene, rng) for scene in random_scenes(6, 4)] == [
        "a razor, a turtle, a monkey, a kite and a bee in the sky",
        "a photo of a laptop",
        "a skateboard on a gray background",
        "a cat and a truck",
        "a bear and a cat",
        "four sandwiches at night",
    ]
    scenes = random_scenes(2, 4, WorldConfig(cells=8))
    assert [(p.name, p.x, p.y, p.size) for scene in scenes for p in scene.objects] == [
        ("bee", 0.375, 0.875, 0.25),
        ("razor", 0.875, 0.375, 0.25),
        ("monkey", 0.5, 0.25, 0.25),
        ("kite", 0.5, 0.5, 0.25),
        ("turtle", 0.875, 0.75, 0.25),
        ("laptop", 0.4375, 0.1875, 0.375),
    ]


def test_fine_scenes_are_upright_in_three_sizes_on_latent_cells():
    scenes = random_scenes(150, 0, FINE)
    objects = [placed for scene in scenes for placed in scene.objects]
    assert all(placed.angle == 0 and not placed.flip for placed in objects)
    assert {placed.size * 16 for placed in objects} == {4, 5, 6}
    edges = np.array([placed.box for placed in objects]) * 16
    assert np.allclose(edges, edges.round(), atol=1e-6)
    assert edges.min() >= 0 and edges.max() <= 16
    assert len(set(edges[:, 0].round() % 2)) == 2  # also between the lines of the coarse grid
    assert all(apart(scene.objects) for scene in scenes)


def test_colorful_scenes_have_a_colour_for_every_kind():
    for scene in random_scenes(20, 0, WorldConfig(cells=16, widths=(4, 5), tinted=0.0, colorful=1.0)):
        colors = {placed.name: placed.color for placed in scene.objects}
        assert None not in colors.values()
        assert len(set(colors.values())) == len(colors)


@pytest.mark.parametrize(("size", "width"), [(0.10, 2), (0.3124, 2), (0.3125, 3), (0.6, 3)])
def test_a_size_between_two_becomes_the_larger(size, width):
    (placed,) = tidied([Placed("dog", size=size)], 8)
    assert placed.size == width / 8


def test_words_of_rich_captions_tell_no_places_within_the_picture():
    placing = {word for phrases in PHRASES.values() for phrase in phrases for word in phrase.split()}
    placing = (placing - {"on", "of", "the", "to"}) | {"beside", "near", "behind", "front", "center", "corner"}
    settings = [words for group in SETTINGS.values() for words in group]
    for words in (*settings, *OPENINGS, *ASIDES, *ADJECTIVES):
        assert not placing & set(re.findall(r"\w+", words)), words
    assert all(not parse(f"a dog and a cat {words}") for words in settings)


def test_rich_captions_name_and_count_what_is_there():
    known = {s.name: (s.name, *s.aliases) for s in sprite_names()}
    rng = np.random.default_rng(0)
    dense = 0
    for scene in random_scenes(300, 1, FINE):
        text = caption(scene, rng, RICH)
        dense += ", " in text.split(" of ", 1)[-1] or ". " in text
        names = [placed.name for placed in scene.objects]
        for name in dict.fromkeys(names):
            count = names.count(name)
            words = [plural(word) if count > 1 else word for word in known[name]]
            counted = rf"(?:{COUNTS[count]})" if count > 1 else r"(?:an?|one)"
            assert re.search(rf"\b{counted} (?:[a-z]+ ){{0,2}}(?:{'|'.join(words)})\b", text), (text, name)
    assert dense > 40


def test_dense_captions_are_of_several_clauses_or_sentences():
    scene = Scene((Placed("dog", 0.3, 0.3, 0.3), Placed("cat", 0.7, 0.7, 0.3)), "beach")
    style = CaptionStyle(dense=1.0, setting=1.0)
    texts = [caption(scene, np.random.default_rng(seed), style) for seed in range(40)]
    assert all(any(aside in text for aside in ASIDES) for text in texts)
    assert all(any(f"{opening} of " in text for opening in OPENINGS) for text in texts)
    assert all(any(setting in text for setting in SETTINGS["beach"]) for text in texts)
    assert {text.endswith(".") for text in texts} == {True, False}


def test_rich_captions_say_relations_as_seldom_and_as_wrongly_as_usual_ones():
    rng = np.random.default_rng(0)
    scene = Scene((Placed("dog", 0.2, 0.5, 0.3), Placed("cat", 0.8, 0.5, 0.3)), "white")
    assert basic_relations(scene.objects[0].box, scene.objects[1].box) == {"left of"}
    said = [relations[0] for _ in range(800) if (relations := parse(caption(scene, rng, RICH)))]
    assert 0.36 < len(said) / 800 < 0.48
    true = [r for r in said if (r.subject, r.predicate) in (("dog", "left of"), ("cat", "right of"))]
    assert 0.35 < len(true) / len(said) < 0.60  # .12 of the .42 on purpose, a quarter of the others by chance
