"""The chained prompts of ``multi-relation-3-2`` in other words (paper, section 4.3), and as dense prompts.

The prompt numbered n asks for the same layout as there: ``phrasing-and`` joins the two relations by "and",
``phrasing-same`` says "and the same X". ``phrasing-plain`` is the first relation alone, ``phrasing-dense`` the same one
between objects with colours, in a place, in a sentence as people write them. All are written by us and read by the
package's own parser, as a user's prompt is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learn_to_steer.benchmarks import multi_relation
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, geneval_line, runnable
from learn_to_steer.prompts import Relation, article, parse, phrase, relation_prompt

SOURCE = "multi-relation-3-2"
SEED = 41
COLORS = ("red", "blue", "green", "yellow", "purple", "orange")
PLACES = ("on the beach", "in the snow", "at night", "on the grass", "in the desert", "on a wooden table")
MANNERS = ("a bright photo", "a detailed illustration", "a quiet scene", "a close view")


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """200 prompts of the form ``name``, of one relation fewer: none is asked for twice.

    See ``learn_to_steer.benchmarks.prompts``.
    """
    write, kept = _FORMS[name]
    found = []
    layouts = set()
    for prompt in multi_relation.prompts(SOURCE):
        layout = tuple(tuple(relation.as_list()) for relation in prompt.relations[:kept])
        if layout in layouts:
            continue
        layouts.add(layout)
        text = write(prompt.relations, np.random.default_rng([SEED, prompt.index]))
        relations = parse(text)
        found.append(BenchmarkPrompt(prompt.index, text, relations, geneval_line(text, relations)))
    return runnable(found, vocabulary)


def _and(relations: tuple[Relation, ...], _: np.random.Generator) -> str:
    first, second = relations
    return f"a photo of {_said(first)} and the {second.subject} is {_placed(second)}"


def _same(relations: tuple[Relation, ...], _: np.random.Generator) -> str:
    first, second = relations
    return f"a photo of {_said(first)}; and the same {second.subject} {_placed(second)}"


def _plain(relations: tuple[Relation, ...], _: np.random.Generator) -> str:
    return f"a photo of {_said(relations[0])}"


def _dense(relations: tuple[Relation, ...], rng: np.random.Generator) -> str:
    relation = relations[0]
    first, second = (COLORS[i] for i in rng.choice(len(COLORS), size=2, replace=False))
    manner, place = MANNERS[rng.integers(len(MANNERS))], PLACES[rng.integers(len(PLACES))]
    said = relation_prompt(f"{first} {relation.subject}", relation.predicate, f"{second} {relation.object}")
    return f"{manner} of {said} {place}, soft light, nobody around"


def _said(relation: Relation) -> str:
    return relation_prompt(relation.subject, relation.predicate, relation.object)


def _placed(relation: Relation) -> str:
    return f"{phrase(relation.predicate)} {article(relation.object)} {relation.object}"


# How a prompt is written, and how many of the source's two relations it has.
_FORMS = {
    "phrasing-and": (_and, 2),
    "phrasing-same": (_same, 2),
    "phrasing-plain": (_plain, 1),
    "phrasing-dense": (_dense, 1),
}
NAMES = tuple(_FORMS)
