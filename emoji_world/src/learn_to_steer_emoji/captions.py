"""Captions like those on the web: they name objects reliably, and relations seldom and often wrongly.

By default 42 % of the captions of several objects mention a relation. Only 12 % do because it is true; for the other
30 % it is drawn at random. A model trained on such captions knows objects well and relation words badly, as real
text-to-image models do (5 to 26 % correct on GenEval's position task).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learn_to_steer.geometry import BASIC, basic_relations
from learn_to_steer.prompts import indefinite_article
from learn_to_steer_emoji.backgrounds import BACKGROUNDS
from learn_to_steer_emoji.scenes import Scene
from learn_to_steer_emoji.sprites import sprite_names

PHRASES = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "above", "over", "on top of", "on the top of"),
    "below": ("below", "below", "under", "beneath", "on the bottom of"),
}
COUNTS = {2: "two", 3: "three", 4: "four"}
PLURALS = {"sheep": "sheep", "knife": "knives", "mouse": "mice", "broccoli": "broccoli", "skis": "skis"}


@dataclass(frozen=True)
class CaptionStyle:
    """Shares (0-1) of captions with each feature; relations are shares of captions of several objects."""

    true_relation: float = 0.12
    random_relation: float = 0.30
    photo: float = 0.3
    place: float = 0.2
    alias: float = 0.4


def plural(noun: str) -> str:
    """Return the plural of a name: "dogs", "wine glasses", "knives"."""
    head, _, last = noun.rpartition(" ")
    if last not in PLURALS:
        last += "es" if last.endswith(("s", "sh", "ch", "x")) else "s"
    else:
        last = PLURALS[last]
    return f"{head} {last}".strip()


def caption(scene: Scene, rng: np.random.Generator, style: CaptionStyle | None = None) -> str:
    """Write a random caption.

    Args:
        scene: What is described. Objects of one kind are counted, and the colours of tinted ones are named.
        rng: Drawn from.
        style: Shares of captions with each feature; None for the defaults.

    Returns:
        The caption.
    """
    style = style or CaptionStyle()
    phrases = _noun_phrases(scene, rng, style)
    if len(phrases) == 1:
        text = phrases[0]
    else:
        draw = rng.random()
        related = draw < style.true_relation + style.random_relation
        text = _related(scene, phrases, draw < style.true_relation, rng) if related else ""
        text = text or _listed(phrases, rng)
    if rng.random() < style.place:
        text = f"{text} {BACKGROUNDS[scene.background].phrase}"
    return f"a photo of {text}" if rng.random() < style.photo else text


def _noun_phrases(scene: Scene, rng: np.random.Generator, style: CaptionStyle) -> list[str]:
    aliases = {s.name: s.aliases for s in sprite_names()}
    kinds = list(dict.fromkeys((p.name, p.color) for p in scene.objects))
    phrases = []
    for name, color in kinds:
        count = sum((p.name, p.color) == (name, color) for p in scene.objects)
        word = str(rng.choice(aliases[name])) if aliases[name] and rng.random() < style.alias else name
        noun = f"{color} {word}" if color else word
        phrases.append(f"{COUNTS[count]} {plural(noun)}" if count > 1 else f"{indefinite_article(noun)} {noun}")
    return phrases


def _listed(phrases: Sequence[str], rng: np.random.Generator) -> str:
    shuffled = [phrases[i] for i in rng.permutation(len(phrases))]
    if len(shuffled) == 2 and rng.random() < 0.15:
        return f"{shuffled[0]} with {shuffled[1]}"
    if len(shuffled) == 2:
        return f"{shuffled[0]} and {shuffled[1]}"
    return f"{', '.join(shuffled[:-1])} and {shuffled[-1]}"


def _related(scene: Scene, phrases: Sequence[str], truthfully: bool, rng: np.random.Generator) -> str:
    """Join neighbours by relation words: "A r B", "A r B r C", "A r B and C r D"; "" if there is no true one."""
    if len(phrases) != len(scene.objects):
        return ""
    order = rng.permutation(len(phrases))
    text = str(phrases[order[0]])
    for position in range(1, len(order)):
        first, second = scene.objects[order[position - 1]], scene.objects[order[position]]
        if position % 2 == 0 and rng.random() < 0.5:
            text += f" and {phrases[order[position]]}"
            continue
        predicate = str(rng.choice(BASIC))
        if truthfully:
            true = basic_relations(first.box, second.box)
            if len(true) != 1:
                return ""
            predicate = next(iter(true))
        text += f" {rng.choice(PHRASES[predicate])} {phrases[order[position]]}"
    return text
