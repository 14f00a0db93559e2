"""VISOR's SR2D prompts: every two of COCO's 80 objects, in both orders, under four relations.

Source: arXiv 2212.10015; microsoft/VISOR, ``create_spatial_phrases.py``.

The published prompt file follows a fixed rule and is generated here: 25,280 prompts with a relation, 6,320 that join
two objects with "and", 80 with one object. The benchmark consists of those with a relation; ``visor-1000`` is a fixed
subset, 250 a relation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from learn_to_steer.benchmarks._object_names import matching_detections
from learn_to_steer.benchmarks.base import BenchmarkPrompt, Score, Size, compose, runnable
from learn_to_steer.geometry import Detection, on_axis
from learn_to_steer.prompts import indefinite_article, phrase
from learn_to_steer.vocabulary import CLASSES, COCO_NAMES

NAMES = ("visor", "visor-1000")
HELD_OUT = False  # it has every pair of COCO's objects, so no pair would be left for training
SUBSET = 1000
SEED = 41
IMAGES = 4  # images of each prompt that VISOR_1 to VISOR_4 need
COCO_NAME_OF = {geneval: coco for coco, geneval in COCO_NAMES.items()}
OBJECTS = tuple(COCO_NAME_OF.get(name, name) for name in CLASSES)
PHRASES = {phrase(predicate): predicate for predicate in ("left of", "right of", "above", "below")}


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make the prompts of one set; see ``learn_to_steer.benchmarks.prompts``.

    Args:
        name: One of ``NAMES``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.

    Returns:
        The prompts; ``index`` is VISOR's ``unique_id``.
    """
    spatial = [entry for entry in entries() if entry["rel_type"] in PHRASES]
    if name == "visor-1000":
        rng = np.random.default_rng(SEED)
        places = {phrase: [n for n, entry in enumerate(spatial) if entry["rel_type"] == phrase] for phrase in PHRASES}
        drawn = [rng.choice(places[phrase], size=SUBSET // len(PHRASES), replace=False) for phrase in PHRASES]
        spatial = [spatial[place] for place in sorted(np.concatenate(drawn).tolist())]
    return runnable([_prompt(entry) for entry in spatial], vocabulary)


def entries() -> list[dict[str, Any]]:
    """Make all 31,680 entries of VISOR's prompt file.

    Returns:
        The entries with the file's fields, in its order.
    """
    made: list[dict[str, Any]] = []
    with_article = {name: f"{indefinite_article(name)} {name}" for name in OBJECTS}

    def add(relation: str, *names: str) -> None:
        joined = f" {relation} ".join(with_article[name] for name in names)
        attributes = {f"obj_{i + 1}_attributes": list(names[i : i + 1]) for i in (0, 1)}
        facts = {"unique_id": len(made), "num_objects": len(names), **attributes, "rel_type": relation}
        made.append(facts | {"text": joined})

    for one, other in combinations(OBJECTS, 2):
        for relation in (*PHRASES, "and"):
            add(relation, one, other)
            add(relation, other, one)
    for name in OBJECTS:
        add("", name)
    return made


def score(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    vocabulary: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """Score an image by VISOR's rule; a ``Rule``.

    An image is correct if *any* box of the subject lies on the prompt's side of *any* box of the object. Only the
    centres are compared, without a margin. VISOR itself uses OWL-ViT with a threshold of 0.1.

    Args:
        prompt: The prompt of the image.
        detections: The detections in the image, above the detector's own threshold.
        vocabulary: Every name and alias that the detector knows -> the class it reports. None: see
            ``matching_detections``.
        size: Has no effect.

    Returns:
        The score.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object of the prompt.
    """
    (relation,) = prompt.relations
    boxes = {name: matching_detections(name, detections, vocabulary) for name in (relation.subject, relation.object)}
    missing = [name for name, detected in boxes.items() if not detected]
    if missing:
        return Score(False, False, (False,), f"missing: {', '.join(missing)}")
    pairs = ((one.box, other.box) for one in boxes[relation.subject] for other in boxes[relation.object])
    correct = any(on_axis(one, relation.predicate, other) for one, other in pairs)
    return Score(correct, True, (correct,), "" if correct else f"wrong side: {' '.join(relation.as_list())} in no pair")


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute VISOR's numbers, as shares.

    Args:
        rows: Rows of ``results.jsonl``, one for each image.

    Returns:
        ``object_accuracy`` (OA); ``unconditional``; ``conditional``, None if no image shows both objects; ``visor_1``
        to ``visor_4``, the share of prompts with at least that many correct images of four, None unless all prompts
        have four images; ``conditional_by_order``, ``conditional`` separately for prompts that name the objects in
        COCO's order and for the swapped ones. A model that ignores the order is correct in half of the two together.
    """
    by_prompt: dict[int, list[bool]] = defaultdict(list)
    for row in rows:
        by_prompt[row["index"]].append(row["correct"])
    four = all(len(images) == IMAGES for images in by_prompt.values())
    reached = {
        f"visor_{n}": sum(sum(images) >= n for images in by_prompt.values()) / len(by_prompt) if four else None
        for n in range(1, IMAGES + 1)
    }
    # Even and odd unique_id: the same two objects and relation, in COCO's order and swapped.
    orders = {order: [row for row in rows if row["index"] % 2 == odd] for odd, order in enumerate(("coco", "swapped"))}
    return {
        "object_accuracy": sum(row["present"] for row in rows) / len(rows),
        "unconditional": sum(row["correct"] for row in rows) / len(rows),
        "conditional": _conditional(rows),
        "conditional_by_order": {order: _conditional(members) for order, members in orders.items()},
        **reached,
    }


def _prompt(entry: dict[str, Any]) -> BenchmarkPrompt:
    objects = [*entry["obj_1_attributes"], *entry["obj_2_attributes"]]
    return compose(entry["unique_id"], objects, [PHRASES[entry["rel_type"]]], prefix="")


def _conditional(rows: Sequence[dict[str, Any]]) -> float | None:
    present = [row["correct"] for row in rows if row["present"]]
    return sum(present) / len(present) if present else None
