"""GenEval: the prompts of its six tasks, its rules, and a validation set of position prompts to tune settings on.

Source: arXiv 2310.11513; djghosh13/geneval, ``prompts/create_prompts.py`` and ``evaluation/evaluate_images.py``.

GenEval's prompts come from one seeded random generator, which all tasks share. As in the Learn-to-Steer paper, position
prompts say "to the left of" where GenEval has "left of"; ``metadata`` keeps GenEval's own line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learn_to_steer.benchmarks._object_boxes import FUSED, boxes_of_relations, require_distinct_classes
from learn_to_steer.benchmarks._object_names import is_one_thing, matching_detections
from learn_to_steer.benchmarks.base import BenchmarkPrompt, Score, Size, compose, runnable
from learn_to_steer.geometry import Detection, basic_relations, holds, iou
from learn_to_steer.prompts import Relation
from learn_to_steer.vocabulary import CLASSES, COLORS

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
BY_NAME = {f"geneval-{task.replace('_', '-')}": task for task in TASKS}
NAMES = ("geneval", *BY_NAME, "geneval-position-val")
THRESHOLD = 0.3  # only detections with a higher score are used
COUNTING_THRESHOLD = 0.9  # the same for the counting task
SEED = 43  # GenEval's own
VALIDATION_SEED = 2025
VALIDATION_DRAWS = 1000  # enough for VALIDATION_COUNT prompts, even if a detector knows only a third of the objects
VALIDATION_COUNT = 200

RELATIONS = ("left of", "right of", "above", "below")
NUMERALS = {2: "two", 3: "three", 4: "four"}


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """Make the prompts of one set; see ``learn_to_steer.benchmarks.prompts``.

    ``geneval`` has all 553 prompts, ``geneval-<task>`` those of one task; ``index`` is the folder number in GenEval's
    own layout. ``geneval-position-val`` has 200 prompts without any pair of objects of the test set, in either order.

    Args:
        name: One of ``NAMES``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.

    Returns:
        The prompts.
    """
    if name != "geneval-position-val":
        tasks = (BY_NAME[name],) if name in BY_NAME else TASKS
        numbered = [(number, line) for number, line in enumerate(lines(SEED)) if line["tag"] in tasks]
        return runnable([_prompt(number, line) for number, line in numbered], vocabulary)
    tested = {_pair(line) for line in lines(SEED) if line["tag"] == "position"}
    drawn = [line for line in lines(VALIDATION_SEED, VALIDATION_DRAWS) if line["tag"] == "position"]
    fresh = [line for line in drawn if _pair(line) not in tested]
    return runnable([_prompt(number, line) for number, line in enumerate(fresh)], vocabulary)[:VALIDATION_COUNT]


def score(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    vocabulary: Mapping[str, str] | None = None,
    size: Size | None = None,
    counting: float = COUNTING_THRESHOLD,
) -> Score:
    """Score an image by GenEval's rules; a ``Rule``.

    Only detections with a score above 0.3 are used, in the counting task above ``counting``. GenEval also keeps no more
    than 16 detections of a class, far more than the highest count of any prompt. The thresholds suit Mask2Former's
    scores.

    Args:
        prompt: The prompt of the image.
        detections: The detections in the image, above the detector's own threshold.
        vocabulary: Every name and alias that the detector knows -> the class it reports. None: see
            ``matching_detections``.
        size: Has no effect.
        counting: Detection score above which objects are counted in the counting task.

    Returns:
        The score.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object of the prompt.
    """
    threshold = counting if prompt.metadata["tag"] == "counting" else THRESHOLD
    above = [one for one in detections if one.score > threshold]
    if prompt.relations:
        return score_relations(prompt, above, vocabulary, size)
    return score_contents(prompt, above, vocabulary)


def score_relations(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    vocabulary: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """Score relations by GenEval's rule, see ``geometry.holds``; a ``Rule``, also that of a user's own prompts.

    The box with the highest score of each class is used; see ``boxes_of_relations`` for two objects of one class. A
    relation never holds between boxes with an IoU above 0.9: they are one object that was detected as two classes.

    Args:
        prompt: The prompt of the image.
        detections: The detections in the image, above the detector's own threshold.
        vocabulary: Every name and alias that the detector knows -> the class it reports. None: see
            ``matching_detections``.
        size: Has no effect, since all lengths are relative to the boxes.

    Returns:
        The score, with a reason for each failure.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object of the prompt, or has one class for two of them.
    """
    if vocabulary is not None:
        require_distinct_classes(prompt, vocabulary)
    boxes = boxes_of_relations(prompt, detections, vocabulary)
    missing: list[str] = []
    held, reasons = [], []
    for relation, (subject, reference) in zip(prompt.relations, boxes, strict=True):
        if subject is None or reference is None:
            held.append(False)
            missing += _missing(relation, subject, reference)
            continue
        failure = _failure(relation, subject, reference)
        held.append(not failure)
        if failure:
            reasons.append(failure)
    if missing:
        reasons.insert(0, f"missing: {', '.join(dict.fromkeys(missing))}")
    return Score(all(held), not missing, tuple(held), "; ".join(reasons))


def _missing(relation: Relation, subject: Detection | None, reference: Detection | None) -> list[str]:
    """What a relation lacks."""
    absent = [name for name, one in ((relation.subject, subject), (relation.object, reference)) if one is None]
    if len(absent) == 1 and is_one_thing(relation.subject, relation.object):
        return [f"a second {absent[0]}"]
    return absent


def _failure(relation: Relation, subject: Detection, reference: Detection) -> str:
    """Why a relation does not hold between two detections; empty if it holds."""
    if iou(subject.box, reference.box) > FUSED:
        return f"fused: {relation.subject} and {relation.object} share a box"
    if holds(subject.box, relation.predicate, reference.box):
        return ""
    wanted = f"{relation.subject} {relation.predicate} {relation.object}"
    actual = sorted(basic_relations(subject.box, reference.box))
    return f"wrong side: {wanted} (is {' and '.join(actual)})" if actual else f"ambiguous: {wanted} (no clear axis)"


def score_contents(
    prompt: BenchmarkPrompt, detections: Sequence[Detection], vocabulary: Mapping[str, str] | None = None
) -> Score:
    """Score objects, counts and colours by GenEval's rule: ``include`` and ``exclude`` of the prompt's metadata.

    An included class needs at least ``count`` detections. Where a ``color`` is given, the ``count`` detections with the
    highest scores must have it. An excluded class must have fewer than ``count`` detections; so GenEval requires an
    exact number.

    Args:
        prompt: The prompt of the image.
        detections: The detections in the image, above the threshold.
        vocabulary: As in ``score_relations``.

    Returns:
        The score, with a reason for each failure.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object.
    """
    missing, reasons, present = [], [], True
    for entry in prompt.metadata["include"]:
        name, count = entry["class"], entry["count"]
        best = matching_detections(name, detections, vocabulary)[:count]
        present &= len(best) == count
        if not best:
            missing.append(name)
        elif len(best) < count:
            reasons.append(f"too few: {len(best)} of {count} {name}")
        elif "color" in entry and any(one.color != entry["color"] for one in best):
            colors = ", ".join(one.color or "unknown" for one in best)
            reasons.append(f"wrong colour: {name} is {colors}, not {entry['color']}")
    for entry in prompt.metadata.get("exclude", []):
        number = len(matching_detections(entry["class"], detections, vocabulary))
        if number >= entry["count"]:
            reasons.append(f"too many: {number} {entry['class']}, not {entry['count'] - 1}")
    if missing:
        reasons.insert(0, f"missing: {', '.join(missing)}")
    return Score(not reasons, present, (), "; ".join(reasons))


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute GenEval's published numbers.

    Args:
        rows: Rows of ``results.jsonl``, one for each image.

    Returns:
        ``tasks``, the share of correct images of each task; ``overall``, the mean of these shares;
        ``correct_images``, the share of correct images; ``correct_prompts``, the share of prompts with at least one
        correct image.
    """
    tasks: dict[str, list[bool]] = defaultdict(list)
    prompts: dict[int, bool] = defaultdict(bool)
    for row in rows:
        tasks[row["tag"]].append(row["correct"])
        prompts[row["index"]] |= row["correct"]
    shares = {task: _mean(tasks[task]) for task in TASKS if task in tasks}
    return {
        "overall": _mean(list(shares.values())),
        "tasks": shares,
        "correct_images": _mean([row["correct"] for row in rows]),
        "correct_prompts": _mean(list(prompts.values())),
    }


def lines(seed: int, draws: int = 100) -> list[dict[str, Any]]:
    """Make GenEval's metadata lines.

    Seed 43 and 100 draws give the published ``evaluation_metadata.jsonl`` byte for byte.

    Args:
        seed: Seed of the generator.
        draws: Number of draws for each task but the first; repeated lines are dropped.

    Returns:
        The lines.
    """
    rng = np.random.default_rng(seed)
    made = [_line("single_object", [_object(c)], _a(CLASSES[c])) for c in rng.choice(80, size=80, replace=False)]
    for _ in range(draws):
        a, b = rng.choice(80, size=2, replace=False)
        made.append(_line("two_object", [_object(a), _object(b)], f"{_a(CLASSES[a])} and {_a(CLASSES[b])}"))
    for _ in range(draws):
        c, count = rng.choice(80), int(rng.integers(2, 4, endpoint=True))
        plural = CLASSES[c] + ("es" if CLASSES[c].endswith("s") else "s")
        too_many = [{"class": CLASSES[c], "count": count + 1}]
        made.append(_line("counting", [_object(c, count)], f"{NUMERALS[count]} {plural}", too_many))
    for _ in range(draws):
        c, color = rng.choice(79) + 1, COLORS[rng.choice(10)]  # a person has no colour
        made.append(_line("colors", [_object(c, color=color)], _a(f"{color} {CLASSES[c]}")))
    for _ in range(draws):
        a, b = rng.choice(80, size=2, replace=False)
        relation = RELATIONS[rng.choice(4)]
        include = [_object(b), _object(a) | {"position": [relation, 0]}]
        made.append(_line("position", include, f"{_a(CLASSES[a])} {relation} {_a(CLASSES[b])}"))
    for _ in range(draws):
        a, b = rng.choice(79, size=2, replace=False) + 1
        one, two = (COLORS[i] for i in rng.choice(10, size=2, replace=False))
        text = f"{_a(f'{one} {CLASSES[a]}')} and {_a(f'{two} {CLASSES[b]}')}"
        made.append(_line("color_attr", [_object(a, color=one), _object(b, color=two)], text))
    return list({repr(line): line for line in made}.values())


def _object(index: int, count: int = 1, color: str | None = None) -> dict[str, Any]:
    return {"class": CLASSES[index], "count": count} | ({"color": color} if color else {})


def _line(
    tag: str, include: list[dict[str, Any]], text: str, exclude: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    exclusion = {"exclude": exclude} if exclude else {}
    return {"tag": tag, "include": include, **exclusion, "prompt": f"a photo of {text}"}


def _a(noun: str) -> str:
    """GenEval's article: by the first letter alone."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _pair(line: dict[str, Any]) -> frozenset[str]:
    return frozenset(entry["class"] for entry in line["include"])


def _prompt(index: int, line: dict[str, Any]) -> BenchmarkPrompt:
    if line["tag"] != "position":
        return BenchmarkPrompt(index, line["prompt"], (), line)
    reference, subject = line["include"]
    prompt = compose(index, [subject["class"], reference["class"]], [subject["position"][0]])
    return replace(prompt, metadata=line)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
