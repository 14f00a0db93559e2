"""The two prompts of an image: one with the true relation, one with a wrong one.

The words of a prompt leave a trace in the attention maps. A classifier trained on true prompts only could read the
relation from that trace. With both prompts under the same label, it has to use the positions of the objects.

Source:
    Paper section 3 (dual inversion). Unlike there, the neutral prompt is "a dog and a cat", not "a dog is a cat".
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.prompts import Relation, indefinite_article, locate, relation_prompt
from learn_to_steer.sources import LabelledImage

Kind = Literal["true", "wrong"]


@dataclass(frozen=True)
class ContrastivePrompt:
    """One of the two prompts of an image."""

    kind: Kind
    text: str
    relation: Relation
    """The relation in the text, with the spans of both nouns."""
    seed: int
    """Seed of the noise that is added to the image under this prompt."""


def prompt_pair(image: LabelledImage, classes: Sequence[str], seed: int) -> tuple[ContrastivePrompt, ContrastivePrompt]:
    """Return the prompt with the true relation, and one with a wrong relation drawn uniformly from the other classes.

    If the image shows further objects, both prompts name them with probability one half ("... and a kite").

    Args:
        image: The image.
        classes: Names of all relations.
        seed: The result depends only on it, the image and the classes.

    Returns:
        The true prompt, then the wrong one.
    """
    rng = random.Random(_number(seed, image.id, "twins"))  # "twins": changing it would change every collection
    wrong = rng.choice([name for name in classes if name != image.predicate])
    others = image.others if rng.random() < 0.5 else ()
    return _prompt(image, "true", image.predicate, others, seed), _prompt(image, "wrong", wrong, others, seed)


def _prompt(image: LabelledImage, kind: Kind, predicate: str, others: Sequence[str], seed: int) -> ContrastivePrompt:
    subject, reference = image.subject, image.object
    if predicate == NEUTRAL:
        text = f"{indefinite_article(subject)} {subject} and {indefinite_article(reference)} {reference}"
    else:
        text = relation_prompt(subject, predicate, reference)
    text += "".join(f" and {indefinite_article(other)} {other}" for other in others)
    relation = locate(text, Relation(subject, predicate, reference))
    return ContrastivePrompt(kind, text, relation, _number(seed, image.id, kind))


def _number(*parts: object) -> int:
    """A number below 2**48 that depends on ``parts`` alone, in every process."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:6])
