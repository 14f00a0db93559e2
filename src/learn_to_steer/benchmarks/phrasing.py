"""The prompts of ``multi-relation-3-2`` in other wordings (arXiv 2509.02295, section 4.3), and as dense prompts.

Prompt n has the same layout as prompt n there. ``phrasing-and`` joins the two relations with "and",
``phrasing-same`` says "and the same X". ``phrasing-plain`` is the first relation alone; ``phrasing-dense`` adds
colours, a place and a style to it, as people write prompts. The wordings are our own. The relations are parsed from the
text, as those of a user's prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks import multi_relation
from learn_to_steer.benchmarks.base import BenchmarkPrompt, geneval_line, runnable
from learn_to_steer.prompts import Relation, indefinite_article, parse, phrase, relation_prompt

SOURCE = "multi-relation-3-2"
SEED = 41
COLORS = ("red", "blue", "green", "yellow", "purple", "orange")
PLACES = ("on the beach", "in the snow", "at night", "on the grass", "in the desert", "on a wooden table")
MANNERS = ("a bright photo", "a detailed illustration", "a quiet scene", "a close view")


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make the prompts of one set: 200 with two relations, fewer with one, since no layout comes twice.

    See ``learn_to_steer.benchmarks.prompts``.

    Args:
        name: One of ``NAMES``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.

    Returns:
        The prompts.
    """
    write, count = _FORMS[name]
    made = []
    layouts = set()
    for prompt in multi_relation.prompts(SOURCE):
        layout = tuple(tuple(relation.as_list()) for relation in prompt.relations[:count])
        if layout in layouts:
            continue
        layouts.add(layout)
        text = write(prompt.relations, np.random.default_rng([SEED, prompt.index]))
        relations = parse(text)
        made.append(BenchmarkPrompt(prompt.index, text, relations, geneval_line(text, relations)))
    return runnable(made, vocabulary)


def _and(relations: tuple[Relation, ...], _: np.random.Generator) -> str:
    first, second = relations
    return f"a photo of {_worded(first)} and the {second.subject} is {_wording_of_place(second)}"


def _same(relations: tuple[Relation, ...], _: np.random.Generator) -> str:
    first, second = relations
    return f"a photo of {_worded(first)}; and the same {second.subject} {_wording_of_place(second)}"


def _plain(relations: tuple[Relation, ...], _: np.random.Generator) -> str:
    return f"a photo of {_worded(relations[0])}"


def _dense(relations: tuple[Relation, ...], rng: np.random.Generator) -> str:
    relation = relations[0]
    first, second = (COLORS[i] for i in rng.choice(len(COLORS), size=2, replace=False))
    manner, place = MANNERS[rng.integers(len(MANNERS))], PLACES[rng.integers(len(PLACES))]
    pair = relation_prompt(f"{first} {relation.subject}", relation.predicate, f"{second} {relation.object}")
    return f"{manner} of {pair} {place}, soft light, nobody around"


def _worded(relation: Relation) -> str:
    return relation_prompt(relation.subject, relation.predicate, relation.object)


def _wording_of_place(relation: Relation) -> str:
    return f"{phrase(relation.predicate)} {indefinite_article(relation.object)} {relation.object}"


# Set -> the function that writes a prompt, and how many of the two relations the prompt has.
_FORMS = {
    "phrasing-and": (_and, 2),
    "phrasing-same": (_same, 2),
    "phrasing-plain": (_plain, 1),
    "phrasing-dense": (_dense, 1),
}
NAMES = tuple(_FORMS)
