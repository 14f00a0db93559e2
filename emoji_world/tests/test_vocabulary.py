"""The models say which words of a prompt they were never taught."""

from __future__ import annotations

import numpy as np
import pytest

from learn_to_steer.families import resolve
from learn_to_steer.model_names import find_variant
from learn_to_steer_emoji.captions import RICH, caption
from learn_to_steer_emoji.vocabulary import untaught_words
from learn_to_steer_emoji.world import random_scenes


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a frog above a sneakers below a teapot", ("frog", "sneakers")),
        ("A Frog, a frog and two mice", ("frog",)),
        ("a dog diagonally above and to the left of another (dog:1.2) BREAK a wine glass", ()),
        ("a brown dog sitting on a hot dog", ("brown", "sitting")),
        ("", ()),
    ],
)
def test_words(prompt: str, expected: tuple[str, ...]) -> None:
    assert untaught_words(prompt) == expected


def test_every_caption_has_only_taught_words() -> None:
    rng = np.random.default_rng(1)
    assert {word for scene in random_scenes(200, 2) for word in untaught_words(caption(scene, rng, RICH))} == set()


def test_the_models_tell_but_not_with_other_weights() -> None:
    assert all(resolve(f"{name}").untaught_words is untaught_words for name in ("sd:emoji", "flux:emoji-schnell"))
    other = find_variant("sd:emoji=owner/copy")
    assert other is not None and other.untaught_words is None
