"""The two prompts of a picture: what it shows, and what it does not.

A classifier that saw true prompts only could read the relation off the words' trace in the maps. With both prompts,
labelled alike, the words say nothing. *Source:* paper section 3 (dual inversion). *Differs:* a drawn neutral class is
worded "a dog and a cat", not "a dog is a cat".
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.prompts import Relation, article, locate, relation_prompt
from learn_to_steer.sources import LabelledPicture

Kind = Literal["true", "wrong"]


@dataclass(frozen=True)
class Twin:
    """One of a picture's prompts; ``relation`` is the one it words, with the spans of both nouns."""

    kind: Kind
    prompt: str
    relation: Relation
    seed: int


def twins(picture: LabelledPicture, classes: Sequence[str], seed: int) -> tuple[Twin, Twin]:
    """The prompt with the true relation, then the one with a relation drawn evenly from the other ``classes``.

    Only subject and object are named; every other crowded picture appends the rest ("... and a kite"), to both
    prompts alike. All draws depend on ``seed`` and the picture's id alone.
    """
    draw = random.Random(_number(seed, picture.id, "twins"))
    wrong = draw.choice([name for name in classes if name != picture.predicate])
    named = picture.others if draw.random() < 0.5 else ()
    return _twin(picture, "true", picture.predicate, named, seed), _twin(picture, "wrong", wrong, named, seed)


def _twin(picture: LabelledPicture, kind: Kind, predicate: str, named: Sequence[str], seed: int) -> Twin:
    subject, reference = picture.subject, picture.object
    if predicate == NEUTRAL:
        text = f"{article(subject)} {subject} and {article(reference)} {reference}"
    else:
        text = relation_prompt(subject, predicate, reference)
    text += "".join(f" and {article(other)} {other}" for other in named)
    relation = locate(text, Relation(subject, predicate, reference))
    return Twin(kind, text, relation, _number(seed, picture.id, kind))


def _number(*parts: object) -> int:
    """A number below 2**48 that depends on ``parts`` alone, in every process."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:6])
