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
# What a background may stand for. None of these words tells where in the picture something is.
SETTINGS = {
    "white": ("in a studio", "in a bathroom", "in a museum"),
    "gray": ("in a street", "in a garage", "in a city", "on a parking lot"),
    "pink": ("in a bedroom", "in a playroom", "at a party"),
    "sky": ("on a sunny day", "in the open air", "in summer"),
    "grass": ("in a park", "in a garden", "in a field", "on a farm"),
    "beach": ("at the seaside", "by the sea", "on an island"),
    "snow": ("in winter", "in the mountains", "on a frozen lake"),
    "night": ("in the dark", "by moonlight", "at midnight"),
    "wood": ("in a kitchen", "in a living room", "in a cafe", "on a table"),
    "desert": ("in the dunes", "in dry land", "in the heat"),
}
OPENINGS = (
    "a picture",
    "an image",
    "a colorful drawing",
    "a simple illustration",
    "a sharp photo",
    "a cheerful scene",
    "a snapshot",
    "a wide view",
)
ASIDES = (
    "warm light",
    "high quality",
    "the colors are bright",
    "it is early in the morning",
    "nothing else to be seen",
    "a calm mood",
    "clean lines",
    "no people",
    "taken with an old camera",
    "for a children's book",
    "very detailed",
    "everything is in focus",
    "a light wind is blowing",
    "it looks friendly",
)
ADJECTIVES = ("small", "big", "lovely", "old", "new", "shiny", "funny", "nice", "beautiful", "plain")
PLURALS = {"sheep": "sheep", "knife": "knives", "mouse": "mice", "broccoli": "broccoli", "skis": "skis"}


@dataclass(frozen=True)
class CaptionStyle:
    """Shares (0 to 1) of captions with each feature.

    Attributes:
        true_relation: Captions of several objects that say a true relation.
        random_relation: Captions of several objects that say a relation drawn at random.
        photo: Captions that begin with "a photo of"; dense ones begin otherwise.
        place: Captions that name the background; dense ones always do.
        alias: Objects that have aliases and are called by one of them.
        setting: Backgrounds that are named as a place they may stand for ("in a kitchen").
        dense: Captions of several clauses or sentences, about mood and style too.
        adjective: Kinds of objects with an adjective that tells nothing of the picture.
        one: Single objects that are counted ("one dog").
    """

    true_relation: float = 0.12
    random_relation: float = 0.30
    photo: float = 0.3
    place: float = 0.2
    alias: float = 0.4
    setting: float = 0.0
    dense: float = 0.0
    adjective: float = 0.0
    one: float = 0.0


# As people write prompts: a fifth of them dense.
RICH = CaptionStyle(place=0.25, setting=0.4, dense=0.2, adjective=0.06, one=0.08)


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
    dense = _happens(style.dense, rng)
    if dense or rng.random() < style.place:
        text = f"{text} {_place(scene.background, rng, style)}"
    if dense:
        return _dense(text, rng)
    return f"a photo of {text}" if rng.random() < style.photo else text


def _happens(share: float, rng: np.random.Generator) -> bool:
    """True in ``share`` of the calls; draws no number for a feature that a style does not have."""
    return share > 0 and rng.random() < share


def _place(background: str, rng: np.random.Generator, style: CaptionStyle) -> str:
    if _happens(style.setting, rng):
        return str(rng.choice(SETTINGS[background]))
    return BACKGROUNDS[background].phrase


def _dense(text: str, rng: np.random.Generator) -> str:
    """``text`` among one to four asides, as clauses or as sentences."""
    sentence = f"{rng.choice(OPENINGS)} of {text}"
    asides = [str(aside) for aside in rng.choice(ASIDES, size=int(rng.integers(1, 5)), replace=False)]
    if rng.random() < 0.5:
        return ", ".join([sentence, *asides])
    if rng.random() < 0.2:
        sentence = f"{asides.pop()}. {sentence}"
    return ". ".join([sentence, *asides]) + "."


def _noun_phrases(scene: Scene, rng: np.random.Generator, style: CaptionStyle) -> list[str]:
    aliases = {s.name: s.aliases for s in sprite_names()}
    kinds = list(dict.fromkeys((p.name, p.color) for p in scene.objects))
    phrases = []
    for name, color in kinds:
        count = sum((p.name, p.color) == (name, color) for p in scene.objects)
        word = str(rng.choice(aliases[name])) if aliases[name] and rng.random() < style.alias else name
        noun = f"{color} {word}" if color else word
        if _happens(style.adjective, rng):
            noun = f"{rng.choice(ADJECTIVES)} {noun}"
        single = "one" if count == 1 and _happens(style.one, rng) else indefinite_article(noun)
        phrases.append(f"{COUNTS[count]} {plural(noun)}" if count > 1 else f"{single} {noun}")
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
